"""Name of the processor and its instructions for 8-bit networks."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_X86 = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX",
}
_ARM = {"asimd": "NEON", "asimddp": "NEON dotprod", "i8mm": "I8MM", "sve": "SVE"}
"""Linux's flags and the names that people know."""


@dataclass(frozen=True)
class Processor:
    """A processor.

    Args:
        name: of the model.
        has: instructions that 8-bit networks use.
        lacks: those of its architecture that it does not have; both are empty where the system does not say.
    """

    name: str
    has: tuple[str, ...]
    lacks: tuple[str, ...]

    def line(self) -> str:
        """Name and instructions in one line."""
        if not self.has and not self.lacks:
            return f"{self.name} (instructions unknown)"
        without = f"; without {', '.join(self.lacks)}" if self.lacks else ""
        return f"{self.name}, {', '.join(self.has) or 'none of the instructions'}{without}"


def describe_processor(cpuinfo: Path = CPUINFO) -> Processor:
    """Read the processor's name and instructions from Linux's ``cpuinfo``; elsewhere only a name."""
    entries: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            entries.setdefault(key.strip(), value.strip())
    known, flags = (_ARM, entries["Features"]) if "Features" in entries else (_X86, entries.get("flags", ""))
    name = entries.get("model name") or platform.processor() or platform.machine()
    if not flags:
        return Processor(name, (), ())
    present = {*flags.split()}
    has = tuple(title for flag, title in known.items() if flag in present)
    return Processor(name, has, tuple(title for flag, title in known.items() if flag not in present))
