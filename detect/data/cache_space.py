"""Memory and disk space for decoded images."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from detect.errors import InputError

MAX_SHARE = 0.8
"""Largest share of the free bytes for a cache; the rest is for training itself."""


class _GroupFiles(NamedTuple):
    """Names of a control group's numbers of bytes in a version of Linux.

    Args:
        limit: file of the group's memory limit; ``max`` is none.
        usage: file of its usage, cached file contents included.
        reclaimable: in its ``memory.stat``, cached file contents not used lately.
    """

    limit: str
    usage: str
    reclaimable: str


_VERSION_2 = _GroupFiles("memory.max", "memory.current", "inactive_file")
_VERSION_1 = _GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def check_space(needed: int, available: int, what: str, hint: str) -> None:
    """Raise InputError for a cache that needs more than ``MAX_SHARE`` of the available bytes."""
    if needed > MAX_SHARE * available:
        raise InputError(
            f"cache: the decoded images need {needed / 2**30:.1f} GiB; of {available / 2**30:.1f} GiB free {what} at "
            f"most {MAX_SHARE:.0%} are taken; {hint}"
        )


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of shared memory that can be taken without swapping or being killed.

    Args:
        root: folder of ``proc``, ``sys`` and ``dev``.
    """
    shared = root / "dev/shm"  # where Linux keeps it; containers often limit it
    limit = min(shutil.disk_usage(shared).free if shared.is_dir() else sys.maxsize, _left_by_control_groups(root))
    meminfo = root / "proc/meminfo"
    if not meminfo.is_file():
        return min(limit, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return min(limit, int(fields["MemAvailable"].split()[0]) * 1024)


def _left_by_control_groups(root: Path) -> int:
    """Bytes left by the control groups (containers, batch systems) of this process; ``sys.maxsize`` if unlimited.

    The group of the process and all groups above it limit. In a container ``/proc/self/cgroup`` may name the path on
    the host, of which only the uppermost folder is there.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return sys.maxsize
    left = sys.maxsize
    for hierarchy, controllers, path in (line.split(":", 2) for line in memberships):
        if hierarchy == "0":
            mount, names = root / "sys/fs/cgroup", _VERSION_2
        elif "memory" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/memory", _VERSION_1
        else:
            continue
        parts = [] if "/.." in path else [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            left = min(left, _left_in_group(mount.joinpath(*parts[:depth]), names))
    return left


def _left_in_group(group: Path, names: _GroupFiles) -> int:
    """Limit minus usage of one group. Cached file contents not used lately count as free: they are reclaimed."""
    try:
        limit = (group / names.limit).read_text(encoding="ascii").strip()
        usage = int((group / names.usage).read_text(encoding="ascii"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return sys.maxsize
    if limit == "max":
        return sys.maxsize
    return max(0, int(limit) - usage + int(statistics[names.reclaimable]))
