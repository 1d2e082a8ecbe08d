from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detect.errors import InputError
from detect.inference.inputs import Source
from detect.inference.sources import expand_sources, image_paths
from tests.inference.clips import write_clip


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.jpg",
        "a.JPG",
        "notes.md",
        ".hidden.jpg",
        "deep/er/c.png",
        "deep/v.MP4",
        ".git/d.jpg",
        "odd[1].jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(sources, folder):
    return [source.path.relative_to(folder).as_posix() for source in sources]


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="source: is an empty list"):
        expand_sources([])


def test_a_file_may_have_any_suffix(folder):
    (source,) = expand_sources(folder / "notes.md")
    assert source == Source(str(folder / "notes.md"), "still", folder / "notes.md")


def test_a_folder_is_searched_with_its_subfolders_without_hidden_files(folder):
    found = expand_sources(str(folder))
    assert names(found, folder) == ["a.JPG", "b.jpg", "deep/er/c.png", "deep/v.MP4", "odd[1].jpg"]
    assert [source.kind for source in found] == ["still", "still", "still", "file", "still"]


def test_patterns(folder):
    assert names(expand_sources(f"{folder}/*.jpg"), folder) == ["b.jpg", "odd[1].jpg"]
    assert names(expand_sources(f"{folder}/**/*.png"), folder) == ["deep/er/c.png"]
    assert names(expand_sources(f"{folder}/deep/*"), folder) == ["deep/v.MP4"]


def test_a_file_whose_name_looks_like_a_pattern(folder):
    assert names(expand_sources(folder / "odd[1].jpg"), folder) == ["odd[1].jpg"]


def test_lists_keep_their_order_and_name_each_image_once(folder):
    found = expand_sources([folder / "b.jpg", folder, f"{folder}/a*"])
    assert names(found, folder) == ["b.jpg", "a.JPG", "deep/er/c.png", "deep/v.MP4", "odd[1].jpg"]
    assert expand_sources(found) == found


def test_home_is_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert names(expand_sources("~/b.jpg"), folder) == ["b.jpg"]


def test_a_text_file_lists_paths_relative_to_itself(folder, monkeypatch):
    monkeypatch.chdir("/")
    (folder / "deep" / "list.txt").write_bytes(
        b"\xef\xbb\xbf# comment\r\n\r\n  er/c.png \r\n../*.jpg\r\nrtsp://u:p@host/1\r\n"
        + str(folder / "a.JPG").encode()
    )
    found = expand_sources(f"{folder}/deep/list.txt")
    assert [source.name for source in found] == [
        f"{folder}/deep/er/c.png",
        f"{folder}/deep/../b.jpg",
        f"{folder}/deep/../odd[1].jpg",
        "rtsp://host/1",
        f"{folder}/a.JPG",
    ]


def test_a_folder_whose_name_looks_like_a_pattern_may_hold_a_list(folder):
    (folder / "x[1]").mkdir()
    (folder / "x[1]" / "e.png").write_bytes(b"x")
    (folder / "x[1]" / "list.txt").write_text("*.png")
    assert names(expand_sources(folder / "x[1]" / "list.txt"), folder) == ["x[1]/e.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"list\.txt: lists nothing; a \.txt file has one path a line"),
        (b"# nothing\n", r"list\.txt: lists nothing"),
        (b"b.jpg\nnone.jpg", r"list\.txt:2: none\.jpg: no such file or folder"),
        (b"*.tif", r"list\.txt:1: \*\.tif: the pattern matches no file"),
        (b"list.txt", r"list\.txt:1: list\.txt: a list may not name another one"),
        (b"\xff\xfea", r"list\.txt: is not UTF-8 text"),
        (b"a\0b", r"list\.txt:1: a\\x00b: no such file or folder"),
        (b"a\0*", r"list\.txt:1: a\\x00\*: the pattern matches no file"),
    ],
)
def test_text_files_that_are_no_lists(folder, content, message):
    (folder / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        expand_sources(folder / "list.txt")


def test_cameras_and_streams(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expand_sources([0, "01", "RTSP://host/x"]) == [
        Source("camera 0", "live", 0),
        Source("camera 1", "live", 1),
        Source("RTSP://host/x", "live", "RTSP://host/x"),
    ]
    (tmp_path / "7").write_bytes(b"x")  # what is there is meant
    assert names(expand_sources("7"), tmp_path.relative_to(tmp_path)) == ["7"]


def test_passwords_are_not_told():
    (source,) = expand_sources("http://name:pass@word@host:80/a?b=c@d")
    assert source == Source("http://host:80/a?b=c@d", "live", "http://name:pass@word@host:80/a?b=c@d")


def test_images_in_memory():
    array, picture = np.zeros((3, 4, 3), np.uint8), Image.new("RGB", (4, 3))
    assert [source.name for source in expand_sources([array, picture])] == ["image 0", "image 1"]
    assert expand_sources(array)[0].origin is array


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.jpg", "source .*none.jpg: no such file or folder"),
        ("*.tif", r"the pattern matches no file; quote patterns"),
        ("*.md", r"the pattern matches 1 files or folders, but no image or video"),
        (".git/empty", r"the folder holds no image and no video \(\.264, .*\.3gp, "),
    ],
)
def test_nothing_found(folder, source, message):
    (folder / ".git" / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        expand_sources(f"{folder}/{source}")


def test_something_else():
    with pytest.raises(
        InputError, match=r"source: must be a path, an address, a camera's number or an image, found 1\.5"
    ):
        expand_sources([1.5])


def test_who_wants_images_only_refuses_the_others(folder):
    assert image_paths(expand_sources(f"{folder}/*.jpg")) == [folder / "b.jpg", folder / "odd[1].jpg"]
    with pytest.raises(InputError, match=r"v\.MP4: only detectors take videos; name images"):
        image_paths(expand_sources(folder))


def animate(path, count=3):
    frames = [Image.fromarray(np.full((6, 8, 3), 80 * number, np.uint8)) for number in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def test_content_decides_where_the_suffix_says_nothing(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    for name in ("camera.dav", "dvd.VOB", "flash.f4v", "recording", "clip.xyz"):
        (tmp_path / name).write_bytes(clip)
        assert expand_sources(tmp_path / name)[0].kind == "file"
    Image.new("RGB", (4, 3)).save(tmp_path / "photo", "PNG")
    (tmp_path / "README").write_text("neither\n")
    for name in ("photo", "README"):  # what is neither is refused as an image when it is read
        assert expand_sources(tmp_path / name)[0].kind == "still"


def test_suffixes_of_images_are_found_in_folders(tmp_path):
    for name in ("a.jfif", "b.mpo", "c.avif", "d.jp2", "e.JPG", "f.dav", "g.vob"):
        (tmp_path / name).write_bytes(b"x")
    assert names(expand_sources(tmp_path), tmp_path) == [
        "a.jfif",
        "b.mpo",
        "c.avif",
        "d.jp2",
        "e.JPG",
        "f.dav",
        "g.vob",
    ]


def test_what_is_left_out_of_a_folder_is_counted_by_suffix(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("a.jpg", "a.txt", "b.TXT", "c.heic", "LICENSE", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert names(expand_sources(tmp_path), tmp_path) == ["a.jpg"]
    expected = "left out, no images or videos by their suffix: 2 .txt, 1 .heic, 1 without a suffix; name a file"
    assert expected in caplog.text
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"no image and no video \(.*\); it has 2 \.txt, 1 \.heic"):
        expand_sources(tmp_path)


def test_images_with_several_frames(tmp_path):
    kinds = {}
    for name in ("a.gif", "b.webp", "c.png", "d.tif"):
        kinds[name] = expand_sources(animate(tmp_path / name))[0].kind
    assert set(kinds.values()) == {"animation"}
    assert expand_sources(animate(tmp_path / "still.gif", count=1))[0].kind == "still"
    assert image_paths(expand_sources(tmp_path / "a.gif")) == [tmp_path / "a.gif"]
