"""Packages, which setup.cfg cannot list: all that are found, and the shipped configs and weights as two more."""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["detect", "detect.*"]), "detect.configs", "detect.weights"],
    package_dir={"detect.configs": "configs", "detect.weights": "weights"},
    package_data={
        "detect": ["py.typed"],
        "detect.data.digits": ["digits.csv.gz", "LICENSE.md"],
        "detect.browser": ["*.js", "*.css", "*.svg"],
        "detect.exporting.web": ["page/*"],
        "detect.serving": ["page/*"],
        "detect.configs": ["*/*.yaml"],
        "detect.weights": ["*.pt", "*.md"],
    },
)
