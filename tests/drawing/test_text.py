from __future__ import annotations

from PIL import ImageFont

from detect.drawing.text import columns, font_for, pad, shorten


def test_shorten() -> None:
    for name, limit, expected in [
        ("", 10, '""'),
        ("car", 10, "car"),
        ("a\nb\x1b[31m", 20, r"a\nb\x1b[31m"),
        ("exactly ten", 11, "exactly ten"),
        ("trafficlight_red_left", 11, "traff…_left"),
        ("人" * 30, 5, "人人…人人"),
    ]:
        assert shorten(name, limit) == expected
        assert len(shorten(name, limit)) <= max(limit, 2)


def test_columns_of_a_terminal():
    assert columns("abc") == 3
    assert columns("人a") == 3  # East Asian characters take two columns
    assert columns("e\u0301") == 1  # a combining accent takes none
    assert pad("人", 4) == "人  "
    assert pad("too long", 3) == "too long"


def test_font_has_the_usual_scripts() -> None:
    for text in ["", "car 0.97", "Ärger", "собака", "ψαρι"]:
        path, drawable = font_for(text)
        assert drawable == text
        ImageFont.truetype(str(path), 12).getbbox(drawable)


def test_characters_of_no_font_are_escaped():
    # A private-use character, in no ordinary font.
    path, drawable = font_for("x\U0010fffd")
    assert path.name == "DejaVuSans.ttf"
    assert drawable == "x\\U0010fffd"
