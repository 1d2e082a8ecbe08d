"""The shared exports as fixtures."""

from __future__ import annotations

import pytest

from tests.exporting import exports


@pytest.fixture(scope="session")
def checkpoint():
    return exports.detector()


@pytest.fixture(scope="session")
def classifier():
    return exports.classifier()


def write(tmp_path_factory, kind):
    """A file of ``exports.KINDS`` alone in its folder."""
    path = tmp_path_factory.mktemp(kind) / "model.onnx"
    path.write_bytes(exports.export(kind)[0])
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The exported detector and its parity."""
    return write(tmp_path_factory, "exported"), exports.export("exported")[1]


@pytest.fixture(scope="session")
def suppressed(tmp_path_factory):
    """A file with non-maximum suppression in it, and its options."""
    return write(tmp_path_factory, "suppressed"), exports.SUPPRESSED


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """A file with the maps of the head."""
    return write(tmp_path_factory, "raw")


@pytest.fixture(scope="session")
def folded(tmp_path_factory):
    """The classifier's file with ordinary weights, and its parity."""
    return write(tmp_path_factory, "folded"), exports.export("folded")[1]


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """The classifier's file with a bit for each binary weight, and its parity."""
    return write(tmp_path_factory, "packed"), exports.export("packed")[1]
