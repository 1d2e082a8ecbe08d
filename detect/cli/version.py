"""Print the version.

detect version
"""

from __future__ import annotations

import argparse

import detect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> None:
    print(detect.__version__)
