from __future__ import annotations

from pathlib import Path

import pytest

from detect.data.cache_space import available_memory


def machine_of(root: Path, memberships: str, groups: dict[str, tuple[object, int, int]]) -> Path:
    """A root folder with 1,000,000 KiB available, and control groups: folder to (limit, usage, reclaimable)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n")
    (root / "proc/self/cgroup").write_text(memberships)
    for folder, (limit, usage, reclaimable) in groups.items():
        group = root / "sys/fs/cgroup" / folder
        group.mkdir(parents=True, exist_ok=True)
        is_first = folder.startswith("memory")
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(f"{limit}\n")
        (group / ("memory.usage_in_bytes" if is_first else "memory.current")).write_text(f"{usage}\n")
        key = "total_inactive_file" if is_first else "inactive_file"
        (group / "memory.stat").write_text(f"anon 7\n{key} {reclaimable}\n")
    return root


FREE = 1_000_000 * 1024


@pytest.mark.parametrize(
    ("memberships", "groups", "expected"),
    [
        ("", {}, FREE),
        ("0::/\n", {}, FREE),  # the uppermost group of a machine has no files
        # version 2: limit - usage + reclaimable
        ("0::/\n", {"": (5000, 3000, 0)}, 2000),
        ("0::/\n", {"": (5000, 4900, 700)}, 800),
        ("0::/\n", {"": (5000, 6000, 0)}, 0),
        ("0::/\n", {"": ("max", 3000, 0)}, FREE),
        # a group and those above it: the tightest counts
        ("0::/job/task\n", {"job": (5000, 4000, 0), "job/task": (9000, 500, 0)}, 1000),
        ("0::/job/task\n", {"job": ("max", 4000, 0), "job/task": (9000, 500, 0)}, 8500),
        ("0::/job/task\n", {"other": (10, 5, 0)}, FREE),
        # in a container: the host's path is not there, or climbs
        ("0::/host/docker-1\n", {"": (5000, 3000, 0)}, 2000),
        ("0::/../host\n", {"": (5000, 3000, 0)}, 2000),
        # version 1, where "no limit" is a large number
        ("4:cpu,memory:/a:b\n1:cpu:/\n0::/\n", {"memory/a:b": (5000, 3000, 500), "memory": (2**63 - 4096, 9, 0)}, 2500),
        ("4:memory:/host/docker-1\n", {"memory": (5000, 3000, 500)}, 2500),
        ("4:memory:/\n", {"memory": (2**63 - 4096, 3000, 500)}, FREE),
    ],
)
def test_control_groups_limit_memory(
    memberships: str, groups: dict[str, tuple[object, int, int]], expected: int, tmp_path: Path
) -> None:
    assert available_memory(machine_of(tmp_path, memberships, groups)) == expected


def test_available_memory_is_plausible() -> None:
    assert 2**20 < available_memory() < 2**50
