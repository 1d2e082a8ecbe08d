from __future__ import annotations

import pytest

from detect.errors import InputError
from detect.inference.sources import expand_sources


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.JPG", "notes.txt", ".hidden.jpg", "deep/er/c.png", ".git/d.jpg", "odd[1].jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="source: is an empty list"):
        expand_sources([])


def test_a_file_may_have_any_suffix(folder):
    assert expand_sources(folder / "notes.txt") == [folder / "notes.txt"]


def test_a_folder_is_searched_with_its_subfolders_without_hidden_files(folder):
    assert names(expand_sources(str(folder)), folder) == ["a.JPG", "b.jpg", "deep/er/c.png", "odd[1].jpg"]


def test_patterns(folder):
    assert names(expand_sources(f"{folder}/*.jpg"), folder) == ["b.jpg", "odd[1].jpg"]
    assert names(expand_sources(f"{folder}/**/*.png"), folder) == ["deep/er/c.png"]


def test_a_file_whose_name_looks_like_a_pattern(folder):
    assert names(expand_sources(folder / "odd[1].jpg"), folder) == ["odd[1].jpg"]


def test_lists_keep_their_order_and_name_each_image_once(folder):
    found = expand_sources([folder / "b.jpg", folder, f"{folder}/a*"])
    assert names(found, folder) == ["b.jpg", "a.JPG", "deep/er/c.png", "odd[1].jpg"]


def test_home_is_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert expand_sources("~/b.jpg") == [folder / "b.jpg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.jpg", "source .*none.jpg: no such file or folder"),
        ("*.tif", r"the pattern matches no file; quote patterns"),
        ("*.txt", r"the pattern matches 1 files or folders, but no image"),
        (".git/empty", r"the folder holds no image \(\.bmp, "),
    ],
)
def test_nothing_found(folder, source, message):
    (folder / ".git" / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        expand_sources(f"{folder}/{source}")
