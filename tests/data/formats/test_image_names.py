from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.data.annotations import Problems
from detect.data.formats.image_names import AMBIGUOUS_NAME, FOREIGN_NAME, OUTSIDE_NAME, ImageFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set whose folder ``link`` is a link to ``real``, with images at the top and below."""
    for name in ("a.jpg", "b c.jpg", "Train/Data/f 0.jpg", "Ä.JPG", "back\\slash.jpg"):
        path = tmp_path / "set" / "real" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "set/link").symlink_to(tmp_path / "set/real")
    (tmp_path / "set/other").mkdir()
    (tmp_path / "set/other/o.jpg").touch()
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    (tmp_path / "secret.jpg").touch()
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "expected", "reading"),
    [
        ("a.jpg", "real/a.jpg", "plain"),
        ("Train/../a.jpg", "real/a.jpg", "plain"),
        ("back\\slash.jpg", "real/back\\slash.jpg", "plain"),  # a name as good as any other where it is one
        ("Train\\Data\\f 0.jpg", "real/Train/Data/f 0.jpg", "foreign"),
        ("link\\a.jpg", "real/a.jpg", "foreign"),
        ("real/a.jpg", "real/a.jpg", "foreign"),
        ("LINK/b%20c.jpg", "real/b c.jpg", "foreign"),
        ("./other/o.jpg", "other/o.jpg", "foreign"),  # relative to the root
        ("/data/local-files/?d=link/b%20c.jpg", "real/b c.jpg", "foreign"),
        ("..\\link\\a.jpg", "real/a.jpg", "foreign"),
        ("C:\\Users\\me\\a.jpg", "real/a.jpg", "likely"),
        ("c:/me/Train/Data/f 0.jpg", "real/Train/Data/f 0.jpg", "likely"),
        ("\\\\server\\share\\a.jpg", "real/a.jpg", "likely"),
        ("file:///C:/a.jpg", "real/a.jpg", "likely"),
        ("https://host/p/b%20c.jpg?token=1", "real/b c.jpg", "likely"),
        ("/home/other/a.jpg", "real/a.jpg", "likely"),
        ("a.JPG", "real/a.jpg", "likely"),
        ("a\u0308.jpg", "real/Ä.JPG", "likely"),  # macOS writes an accent behind its letter
        ("none.jpg", "real/none.jpg", "missing"),
        ("Train/a.jpg", "real/Train/a.jpg", "missing"),  # another folder's image of that name is another image
        ("/etc/passwd", "real/passwd", "missing"),
        ("../secret.jpg", None, "outside"),
        ("../../secret.jpg", None, "outside"),
        ("%2e%2e/secret.jpg", None, "outside"),
        ("..\\..\\secret.jpg", None, "outside"),
        ("", None, "outside"),
        (".", None, "outside"),
        ("/", None, "outside"),
        ("a\0.jpg", None, "outside"),
        ("a%00.jpg", None, "outside"),
        ("\ud800.jpg", None, "outside"),
        ("a" * 5000, f"real/{'a' * 5000}", "missing"),
    ],
)
def test_readings(root: Path, name: str, expected: str | None, reading: str) -> None:
    found = ImageFolder(root / "link", root).find(name)
    assert (found.path, found.reading) == (expected and root / expected, reading), json.dumps(name)


def test_absolute_names_of_the_users_own(root: Path) -> None:
    folder = ImageFolder(root / "link", root)
    assert folder.find(str(root / "real/a.jpg")) == (root / "real/a.jpg", "plain")
    for name in (root / "link/a.jpg", root.parent / "alias/link/a.jpg"):
        assert folder.find(str(name)) == (root / "real/a.jpg", "foreign")
    assert folder.find(str(root / "other/o.jpg")) == (root / "other/o.jpg", "foreign")
    # A file outside the data set is never opened: of its path the longest end in the folder is looked for.
    assert folder.find(str(root.parent / "secret.jpg")) == (root / "real/secret.jpg", "missing")


def test_what_is_counted(root: Path) -> None:
    names = ["a.jpg", "link\\b c.jpg", "../secret.jpg", "none.jpg", "/x/Data/f 0.jpg", "/y/train/f.jpg", "/y/val/f.jpg"]
    (root / "real/f.jpg").touch()
    (root / "real/Data").mkdir()
    (root / "real/Data/f 0.jpg").touch()
    problems = Problems()
    paths = ImageFolder(root / "link", root).find_all(names, problems)
    real = root / "real"
    assert paths == [real / "a.jpg", real / "b c.jpg", None, real / "none.jpg", real / "Data/f 0.jpg", None, None]
    assert problems.found() == [
        (FOREIGN_NAME, 2, ("'link\\\\b c.jpg' is b c.jpg", "'/x/Data/f 0.jpg' is Data/f 0.jpg")),
        (OUTSIDE_NAME, 1, (f"'../secret.jpg' leads out of the images' folder {real}",)),
        (AMBIGUOUS_NAME, 2, ("'/y/train/f.jpg'", "'/y/val/f.jpg'")),
    ]
