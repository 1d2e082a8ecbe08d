"""The JSON API of a real server: answers, errors, limits, and what must not get through."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from detect.inference.detector import Detector
from detect.serving import app
from detect.serving.app import PAGE_FILES, Limits
from detect.serving.predictions import ServedDetector
from detect.serving.security import HEADERS
from tests.papers.sdpoint.samples import detector as checkpoint_of
from tests.serving.servers import ask, png, served, serving

LIMITS = Limits(upload_bytes=20_000, waiting=2, upload_s=1.0)


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A server of the hand-made detector, with small limits."""
    with serving(served(tmp_path_factory.mktemp("served")), LIMITS, ("lab-pc",)) as port:
        yield port


@pytest.fixture(autouse=True)
def short_drain(monkeypatch):
    monkeypatch.setattr(app, "_DRAIN_S", 0.3)


def test_the_model(port):
    answer = ask(port, "/api/model")
    assert (answer.status, answer.content["model"]) == (200, "hand-made")
    assert answer.content["max_upload_bytes"] == 20_000


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "Image/JPEG; x=y"])
def test_a_prediction(port, kind):
    answer = ask(port, "/api/predict?conf=0.5", png(), content_type=kind)
    assert answer.status == 200
    assert [(one["category"], one["xyxy"]) for one in answer.content["detections"]] == [("c", [4.0, 8.0, 20.0, 40.0])]


def test_a_picture(port):
    answer = ask(port, "/api/picture", png())
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.content.startswith(b"\xff\xd8")


@pytest.mark.parametrize("name", PAGE_FILES)
def test_the_page(port, name):
    answer = ask(port, "/" if name == "index.html" else f"/{name}")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(PAGE_FILES[name])
    assert answer.content


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "line"),
    [
        ("/api/predict", b"", {}, 422, "the image: is empty"),
        ("/api/predict", b"hello", {}, 422, "the image: is not an image, or damaged; read are JPEG"),
        ("/api/predict", png()[:60], {}, 422, "the image: is truncated"),
        ("/api/picture", b"hello", {}, 422, "the image: is not an image"),
        ("/api/predict?conf=2", png(), {}, 400, "score threshold: must be from 0 to 1, found 2.0"),
        ("/api/predict?cost=0.5", png(), {}, 400, "the cost of an exported file is fixed"),
        ("/api/predict?wild=1", png(), {}, 400, "wild: is not an option"),
        ("/api/predict", png(), {"content_type": "text/plain"}, 415, "content type: must be image/... or application/"),
        ("/api/predict", png(), {"content_type": "multipart/form-data; boundary=x"}, 415, "not a form"),
        ("/api/predict", bytes(20_001), {}, 413, "the image: has more than 0.0190735 MiB"),
        ("/api/predict", None, {}, 405, "Method Not Allowed"),
        ("/api/nothing", None, {}, 404, "Not Found"),
        ("/../../../etc/passwd", None, {}, 404, "Not Found"),
        ("/page/index.html", None, {}, 404, "Not Found"),
        ("/api/model", None, {"host": "evil.example"}, 403, "host: 'evil.example' is not a name of this server"),
        ("/", None, {"host": "evil.example:8000"}, 403, "host: 'evil.example:8000'"),
        (
            "/api/predict",
            png(),
            {"origin": "http://evil.example"},
            403,
            "origin: 'http://evil.example' is another site",
        ),
        ("/api/predict", png(), {"origin": "null"}, 403, "origin: 'null' is another site"),
    ],
)
def test_errors(port, path, body, headers, status, line):
    answer = ask(port, path, body, **headers)
    assert answer.status == status, answer
    assert line in answer.complaint
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_every_answer_has_the_headers(port):
    for path in ("/", "/main.js", "/api/model"):
        answer = ask(port, path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["server"] is None
    assert "unsafe" not in HEADERS["content-security-policy"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9", "127.0.0.1", "10.0.0.7:8000", "[::1]:8000", "lab-pc:8000"]
)
def test_known_hosts(port, host):
    assert ask(port, "/api/model", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["localhost.evil.example", "lab-pc@evil.example", "127.0.0.1.evil.example", "[evil]", "1"]
)
def test_foreign_hosts(port, host):
    assert ask(port, "/api/model", host=host).status == 403


def test_the_page_of_the_server_itself_may_ask(port):
    assert ask(port, "/api/predict", png(), host="lab-pc:8000", origin="http://lab-pc:8000").status == 200


def test_an_error_of_the_server(tmp_path, caplog):
    """The trace is for the terminal, the answer says nothing of it."""
    broken = served(tmp_path)
    broken._reading = None
    with serving(broken) as port:
        answer = ask(port, "/api/predict", png())
    assert (answer.status, answer.complaint) == (500, "an error of the server; see its terminal")
    assert "AttributeError" in caplog.text


def test_hostile_files(port, real_data):
    """Each is read or refused with one line, as by ``detect predict``; the limit of bytes is one of them."""
    paths = [path for path in sorted((real_data / "hostile").iterdir()) if path.name != "LICENSE"]
    found = {path.name: ask(port, "/api/predict", path.read_bytes()) for path in paths}
    assert {answer.status for answer in found.values()} == {200, 413, 422}
    assert all(answer.complaint for answer in found.values() if answer.status != 200)
    assert found["reallybig.bmp"].complaint.startswith("the image: ")
    assert found["zero_width.gif"].status == 422


# ------------------------------------------------------------------------------------------------ limits


def opened(port: int, head: str) -> socket.socket:
    """A connection that has sent the head of a request, and nothing of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(
        f"POST /api/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n{head}\r\n\r\n".encode()
    )
    return connection


def answered(connection: socket.socket) -> tuple[int, str]:
    """Status and line of the error that the server sends before it closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
        if b"\r\n\r\n" in received and received.endswith(b"}"):
            break
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_stream_without_end_is_stopped(port):
    """Its length is not declared; what comes after the limit is thrown away for a moment, then nothing is read."""
    chunk = b"1000\r\n" + bytes(0x1000) + b"\r\n"
    sent, start = 0, time.monotonic()
    with opened(port, "transfer-encoding: chunked") as connection:

        def send() -> None:
            nonlocal sent
            try:
                while time.monotonic() - start < 20:
                    connection.sendall(chunk)
                    sent += 1
            except OSError:  # the server has closed it
                return

        sender = threading.Thread(target=send)
        sender.start()
        assert answered(connection) == (413, "the image: has more than 0.0190735 MiB; --max-upload raises the limit")
        sender.join()
    assert time.monotonic() - start < 15
    assert sent > 5  # 4096 bytes each, of which 20,000 are allowed


def test_a_client_that_asks_before_it_sends(port):
    """It learns that the image is too large before it has sent any of it."""
    with opened(port, "content-length: 200000000\r\nexpect: 100-continue") as connection:
        assert answered(connection)[0] == 413


def test_a_full_queue_and_slow_uploads(port):
    """Two that do not go on take both places; the third is refused at once, and they are after a second."""
    slow = [opened(port, "content-length: 100") for _ in range(LIMITS.waiting)]
    time.sleep(0.2)
    start = time.monotonic()
    full = ask(port, "/api/predict", png())
    assert time.monotonic() - start < 0.7
    assert (full.status, full.complaint) == (503, "busy: 2 requests are waiting; try again in a moment")
    assert ask(port, "/api/model").status == 200
    for connection in slow:
        with connection:
            assert answered(connection) == (408, "the upload took longer than 1 s")
    assert ask(port, "/api/predict", png()).status == 200


def test_a_client_that_leaves(port):
    """Its place becomes free."""
    for _ in range(2 * LIMITS.waiting):
        opened(port, "content-length: 100").close()
    time.sleep(0.1)
    assert ask(port, "/api/predict", png()).status == 200


def test_each_of_many_gets_its_own_cost(tmp_path):
    """One network, whose instances change between requests that come at the same time."""
    detector = ServedDetector(Detector(checkpoint_of(tmp_path), device="cpu"), tmp_path / "slider.pt")
    costs = [0.25, 0.6, 0.9, 1.0] * 4
    with serving(detector, Limits(waiting=16)) as port, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda cost: ask(port, f"/api/predict?cost={cost}", png(32, 32)), costs))
    assert [answer.content["cost"] for answer in answers] == costs
