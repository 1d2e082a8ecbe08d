"""Print the version.

detect version
"""

from __future__ import annotations

import argparse

import detect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: ``detect version`` has no flags."""


def run(args: argparse.Namespace) -> None:
    """Print it."""
    print(detect.__version__)
