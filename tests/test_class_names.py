"""Class names compared by name."""

from __future__ import annotations

from detect.class_names import are_numbers, match_names, some_names


def test_match_names() -> None:
    for source, target, expected in [
        ((), ("a",), []),
        (("a", "b"), ("a", "b"), [0, 1]),
        (("a", "b"), ("b", "c", "a"), [2, 0]),
        (("x", "x"), ("x", "x"), [0, 1]),  # equal lists: by place
        (("x", "x", "y"), ("y", "x"), [-1, -1, 0]),  # either could be meant
        (("Car", " traffic  Light"), ("traffic light", "car"), [1, 0]),
        (("CAR",), ("Car", "car"), [-1]),  # either could be meant
        (("Car", "car"), ("car",), [-1, 0]),
        (("Car", "CAR"), ("car",), [-1, -1]),
        (("pole_a",), ("pole a",), [-1]),  # another character is another name
    ]:
        assert match_names(source, target).target_of.tolist() == expected


def test_what_a_match_says():
    match = match_names(("a", "B", "c"), ("b", "d", "a"))
    assert (match.shared, match.only_source, match.only_target) == (["a", "b"], ["c"], ["d"])
    assert match.respelled == ["'B' is 'b'"]
    assert not match.is_same
    assert match_names(("A", "b"), ("a", "b")).is_same
    assert not match_names(("a",), ("a", "b")).is_same


def test_texts():
    assert some_names(["a", "b"]) == "'a', 'b'"
    assert some_names(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert are_numbers(("0", "1"))
    assert not are_numbers(("1", "0"))
