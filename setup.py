"""What setup.cfg cannot say: every package that is found, and the shipped configs beside them as one more."""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["detect", "detect.*"]), "detect.configs"],
    package_dir={"detect.configs": "configs"},
    package_data={"detect": ["py.typed"], "detect.configs": ["*/*.yaml"]},
)
