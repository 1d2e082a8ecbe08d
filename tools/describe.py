"""``detect describe`` from a checkout."""

from __future__ import annotations

from detect.cli import start

if __name__ == "__main__":
    start("describe")
