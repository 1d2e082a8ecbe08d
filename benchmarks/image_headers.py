"""Time for the header of a JPEG: parsed by the toolkit, and opened by Pillow.

python benchmarks/image_headers.py FOLDER
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from detect.data.image_headers import parse_header
from detect.data.images import is_image_file

REPEATS = 5
HEAD_BYTES = 64 * 1024
ORIENTATION = 274


def by_pillow(data: bytes) -> None:
    """Open an image and read its EXIF orientation."""
    with Image.open(io.BytesIO(data)) as image:
        image.getexif().get(ORIENTATION)


def microseconds(read: Callable[[bytes], object], contents: list[bytes]) -> float:
    """Least processor time per file of several rounds."""
    rounds = []
    for _ in range(REPEATS):
        start = time.process_time()
        for data in contents:
            read(data)
        rounds.append((time.process_time() - start) / len(contents) * 1e6)
    return min(rounds)


def main() -> None:
    """Print the two times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with JPEG files, in it or below")
    paths = [path for path in sorted(parser.parse_args().folder.rglob("*.jpg")) if is_image_file(path)]
    contents = [path.read_bytes() for path in paths]
    print(f"{len(paths)} JPEGs of {sum(map(len, contents)) / len(paths) / 1024:.0f} KiB on average")
    parsed = microseconds(lambda data: parse_header(data[:HEAD_BYTES]), contents)
    print(f"parsed {parsed:.0f} us, by Pillow {microseconds(by_pillow, contents):.0f} us")


if __name__ == "__main__":
    main()
