"""The package as it is installed: configs and weights inside it, no checkout around it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_python(site: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def site(tmp_path):
    """A folder laid out as site-packages, by links."""
    package = tmp_path / "site" / "detect"
    package.mkdir(parents=True)
    for path in (*(ROOT / "detect").iterdir(), ROOT / "configs", ROOT / "weights"):
        (package / path.name).symlink_to(path)
    return package.parent


def test_configs_and_weights_are_found(site, tmp_path):
    code = (
        "import detect, json\nfrom detect.config.data import load_data_config\n"
        "from detect.config.yaml_files import CONFIGS\n"
        "from detect.models.catalog import shipped_weights\n"
        "root = load_data_config('shapes').root\n"
        "print(json.dumps([detect.__file__, str(CONFIGS), root, str(shipped_weights()['yolov5n-spd-bccd'])]))\n"
    )
    package = site / "detect"
    (tmp_path / "away").mkdir()
    assert json.loads(run_python(site, tmp_path / "away", "-c", code)) == [
        str(package / "__init__.py"),
        str(package / "configs"),
        str(tmp_path / "away" / "data" / "shapes"),  # never inside the package
        str(package / "weights" / "yolov5n-spd-bccd.pt"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="building a wheel offline needs setuptools")
def test_the_wheel(tmp_path):
    command = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT))
    run_python(ROOT, tmp_path, *command)
    (wheel,) = tmp_path.glob("detect_small-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    words = ("weights=yolov5n-spd-bccd", f"source={ROOT / 'docs/predictions.jpg'}", "device=cpu")
    assert "drawn images" in run_python(site, tmp_path, "-m", "detect", "predict", *words)
    pages = {path.name for path in (ROOT / "detect/serving/page").iterdir()}
    assert {path.name for path in (site / "detect/serving/page").iterdir()} == pages
    assert "detect = detect.cli:start" in next(site.glob("*.dist-info/entry_points.txt")).read_text()
