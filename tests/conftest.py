"""What every test gets: no network, one thread, and published data where there is some."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.offline import sitecustomize

# Before PyTorch is imported: the suite runs in several processes, each with one thread. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Whoever sets it pays for it: each process would compile the package, and rewrite the asserts of all tests, anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shared machine is slow at times, and a failure must be the same failure tomorrow.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

sitecustomize.guard_all()

REAL_DATA = os.environ.get("DETECT_REAL_DATA")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of exports that all processes of the session share (``tests/exporting/exports.py``)."""
    gc.disable()  # until everything is imported
    if not hasattr(config, "workerinput"):
        folder = os.environ["DETECT_TEST_EXPORTS"] = tempfile.mkdtemp(prefix="detect-exports-")
        config.add_cleanup(lambda: shutil.rmtree(folder))


def pytest_collection_finish() -> None:
    """Leave modules and tests, which stay to the end, out of every later garbage collection."""
    gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)  # with Python's 700, collections took 6 % of the suite's time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for ``real_data`` as real, and skip it only where the variable is unset."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
        if item.get_closest_marker("real") and not REAL_DATA:
            item.add_marker(pytest.mark.skip(reason="DETECT_REAL_DATA is not set"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Turn a skipped real test into a failed one where its data was promised."""
    report = yield
    if REAL_DATA and report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("real"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped although DETECT_REAL_DATA is set: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of published data (``bccd/``, ``deeppcb/``, ``tiny_coco/``, ``hostile/``, ...)."""
    assert REAL_DATA, "tests with this fixture are skipped without DETECT_REAL_DATA"
    folder = Path(REAL_DATA)
    assert folder.is_dir(), f"DETECT_REAL_DATA={REAL_DATA} is no folder"
    return folder


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first of pytest-xdist's workers makes and the others wait for."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            make(folder)
            (folder / ".made").touch()
    return folder


@pytest.fixture(scope="session")
def trained_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny.yaml``, ``data.yaml``, ``recipe.yaml``, the data set ``shapes`` (64 px) and a ``run``.

    ``run`` is the folder of ``detect train`` after one epoch: ``best.pt``, ``last.pt``, ``config.yaml``, ... All tests
    of the session share it, so none of them writes into it: results go to ``tmp_path``.
    """
    from tests.tools.running import make_trained_world

    return _made_once(tmp_path_factory, "trained", make_trained_world)


@pytest.fixture(scope="session")
def exported_run(trained_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.onnx`` of the ``run`` in ``trained_world``, shared and for reading only; made in about 20 s."""
    from tests.tools.running import run_here

    def export(folder: Path) -> None:
        ended = run_here(trained_world, "export.py", "--weights", "run/best.pt", "--out", folder / "model.onnx")
        assert ended.code == 0, ended.error

    return _made_once(tmp_path_factory, "exported", export) / "model.onnx"


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Give Ctrl-C and SIGTERM back to pytest after a tool that has run in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Fail a test during which this process, or one that it started, has tried to reach another machine."""
    yield
    if refused := sitecustomize.take_attempts():
        pytest.fail(f"there is no network in tests, and nothing of the toolkit may need it: {refused}")
