"""``detect serve`` under load: uploads at the same time, far too large ones, and memory that does not grow."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from tests.serving.servers import Answer, ask

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GROWTH_MB = 40
"""What the memory may grow by; an image has 14 MB as pixels, an upload 0.2 MB."""


@pytest.fixture
def server() -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a server of shipped weights with small limits."""
    words = ["--weights", "yolov5n-spd-shapes", "--port", "0", "--max-upload", "4", "--max-waiting", "4"]
    command = [sys.executable, "-m", "detect", "serve", *words, "--threads", "1", "--device", "cpu"]
    settings = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline().rpartition(":")[2].split()[0]), psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def photo(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
    large = cv2.resize(noise, (2560, 1920), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()


def upload(port: int, size: int) -> Answer:
    """Send zeros of a size that is declared."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    head = {"content-type": "image/jpeg", "content-length": str(size)}
    try:
        connection.request("POST", "/api/predict", (bytes(2**20) for _ in range(size // 2**20)), head)
        response = connection.getresponse()
        return Answer(response.status, response.headers, json.loads(response.read()))
    finally:
        connection.close()


def resident_mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def test_fifty_at_once_and_memory(server):
    """Each gets an answer: what it asked for, or one line that the server is busy. After the first rounds, in which
    the libraries take what they keep, the memory stays."""
    port, process = server
    photos = [photo(seed) for seed in range(8)]

    def round_of(count: int) -> Counter[int]:
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda number: ask(port, "/api/predict", photos[number % 8]), range(count)))
        for answer in answers:
            if answer.status == 200:
                assert (answer.content["width"], answer.content["height"]) == (2560, 1920)
            else:
                assert answer.complaint == "busy: 4 requests are waiting; try again in a moment"
        return Counter(answer.status for answer in answers)

    first = sum((round_of(50) for _ in range(3)), Counter())
    before = resident_mb(process)
    found = sum((round_of(50) for _ in range(6)), Counter())
    after = resident_mb(process)
    print(f"{first + found}; {before:.0f} MiB, after 300 more requests {after:.0f} MiB")
    assert set(found) == {200, 503}
    assert after - before < GROWTH_MB


def test_two_hundred_megabytes(server):
    """Refused by its declared length, and nothing of it is kept."""
    port, process = server
    ask(port, "/api/predict", photo(0))
    before = resident_mb(process)
    for _ in range(3):
        answer = upload(port, 200 * 2**20)
        assert (answer.status, answer.complaint) == (
            413,
            "the image: has more than 4 MiB; --max-upload raises the limit",
        )
    after = resident_mb(process)
    print(f"{before:.0f} MiB, after three uploads of 200 MiB {after:.0f} MiB")
    assert after - before < GROWTH_MB
