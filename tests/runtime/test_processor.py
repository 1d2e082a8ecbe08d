"""Names and instructions of processors, from files as Linux has them."""

from __future__ import annotations

import pytest

from detect.runtime.processor import describe_processor

X86 = "processor\t: 0\nmodel name\t: Some EPYC\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\nmodel name\t: Other\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("text", "has", "lacks"),
    [
        (X86, ("AVX2", "AVX-512"), ("AVX-512 VNNI", "AVX-VNNI", "AMX")),
        (ARM, ("NEON", "NEON dotprod"), ("I8MM", "SVE")),
        ("model name : Some\n", (), ()),
    ],
)
def test_instructions(tmp_path, text, has, lacks):
    (tmp_path / "cpuinfo").write_text(text)
    found = describe_processor(tmp_path / "cpuinfo")
    assert (found.has, found.lacks) == (has, lacks)


def test_line(tmp_path):
    (tmp_path / "cpuinfo").write_text(X86)
    line = describe_processor(tmp_path / "cpuinfo").line()
    assert line == "Some EPYC, AVX2, AVX-512; without AVX-512 VNNI, AVX-VNNI, AMX"


def test_another_system(tmp_path):
    found = describe_processor(tmp_path / "none")
    assert found.name
    assert found.line() == f"{found.name} (instructions unknown)"
