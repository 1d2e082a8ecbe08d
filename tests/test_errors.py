"""The words behind an error message."""

from __future__ import annotations

import pytest

from detect.errors import InputError, did_you_mean, is_writable


@pytest.mark.parametrize(
    ("found", "allowed", "clause"),
    [
        ("lr", [], "; nothing is allowed here"),
        ("lerning_rate", ["learning_rate", "epochs"], "; did you mean 'learning_rate'?"),
        ("zzz", ["b", "a"], "; allowed: a, b"),  # nothing near: all of them, sorted
        ("", ["a"], "; allowed: a"),
        ("Coco", {"coco": 1, "voc": 2}, "; did you mean 'coco'?"),  # a mapping's keys
    ],
)
def test_did_you_mean(found: str, allowed: list[str], clause: str) -> None:
    assert did_you_mean(found, allowed) == clause


def test_allowed_words_may_come_once() -> None:
    assert did_you_mean("zzz", (word for word in ("b", "a"))) == "; allowed: a, b"


def test_input_error_is_a_value_error() -> None:
    """Callers of the library may catch it as what it is in plain Python."""
    assert issubclass(InputError, ValueError)


def test_a_message_is_one_line_that_a_terminal_can_show():
    """Names in it come from strangers' files."""
    assert str(InputError("two\nlines  of\ttext")) == "two lines of text"
    assert str(InputError("name '\x1b[2J\u2028\ud800\u202e'")) == r"name '\x1b[2J\u2028\ud800\u202e'"


def test_a_message_has_a_length():
    message = str(InputError("a" * 10_000 + "b" * 10_000))
    assert message == "a" * 2000 + "…" + "b" * 2000


@pytest.mark.parametrize(("text", "expected"), [("", True), ("猫 🐈", True), ("a\ud800", False), ("\udcff.jpg", False)])
def test_halves_of_characters_cannot_be_written(text, expected):
    assert is_writable(text) == expected
