from __future__ import annotations

import pytest

from detect.errors import InputError
from detect.models import blocks, heads  # noqa: F401 (importing registers them)
from detect.models.registry import BLOCKS, Block, find_block, register


def test_known_blocks() -> None:
    known = {"AnchorDetect", "C3", "Concat", "Conv", "Downsample", "SPPF", "SpaceToDepth", "Stem", "Upsample"}
    assert known <= set(BLOCKS)
    for name, block in BLOCKS.items():
        assert find_block(name) is block
        assert issubclass(block, Block)


def test_unknown_block() -> None:
    with pytest.raises(InputError, match=r"^module: unknown 'Cov'; did you mean 'Conv'\?$"):
        find_block("Cov")
    with pytest.raises(InputError, match=r"^module: unknown 'os\.system'; allowed: Add, AnchorDetect, "):
        find_block("os.system")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(AssertionError, match="Conv is registered twice"):
        register(type("Conv", (Block,), {}))
    assert BLOCKS["Conv"].__module__ == "detect.models.blocks.conv"


def test_a_block_must_say_its_shape() -> None:
    with pytest.raises(NotImplementedError):
        Block().out_shape()
