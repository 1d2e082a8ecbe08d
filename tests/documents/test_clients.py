"""The JavaScript client prepares images as the toolkit does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from detect.data.letterbox import letterbox, pad_batch
from tests.documents.pages import ROOT

CLIENT = ROOT / "docs" / "clients" / "detect.mjs"
PROGRAM = """\
import { readFileSync } from "node:fs";
import { prepare } from "CLIENT";
const [path, width, height, channels, size] = process.argv.slice(2);
const image = { data: readFileSync(path), width: +width, height: +height, channels: +channels };
const { tensor, dims, scale } = prepare(image, +size);
console.log(JSON.stringify({ tensor: Array.from(tensor), dims, scale }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(("hw", "channels"), [((50, 70), 3), ((96, 64), 4), ((23, 31), 3)])
def test_images_are_prepared_alike(hw: tuple[int, int], channels: int, tmp_path: Path) -> None:
    """Shrunk, unchanged with an alpha channel, enlarged; OpenCV rounds its linear weights, up to two levels."""
    image = np.random.default_rng(0).integers(0, 256, (*hw, channels), np.uint8)
    (tmp_path / "image").write_bytes(image.tobytes())
    program = tmp_path / "program.mjs"
    program.write_text(PROGRAM.replace("CLIENT", CLIENT.as_posix()), encoding="utf-8")
    size = 96 if hw == (96, 64) else 48
    words = ["node", str(program), str(tmp_path / "image"), str(hw[1]), str(hw[0]), str(channels), str(size)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    scaled, placement = letterbox(np.ascontiguousarray(image[..., :3]), size)
    expected = pad_batch([scaled], 32).transpose(0, 3, 1, 2)
    assert found["dims"] == list(expected.shape)
    assert found["scale"] == pytest.approx(placement.scale_xy)
    levels = np.array(found["tensor"]).reshape(expected.shape) * 255
    assert np.abs(levels - expected).max() < 2.01
