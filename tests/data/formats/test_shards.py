"""Shards: the same training as from a folder, what other programs write, and damage of every kind."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.config.augment import AugmentConfig
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable
from detect.data.checks import BAD_IMAGE, NOT_FINITE, WRONG_SIZE
from detect.data.datasets import open_split
from detect.data.detection.images import ImageFiles, build_cache
from detect.data.detection.loading import EvaluationLoader, OriginalLoader, TrainingLoader
from detect.data.formats import shard_images, shard_index
from detect.data.formats.coco_annotations import BAD_ANNOTATION, UNKNOWN_CATEGORY
from detect.data.formats.shard_index import BAD_JSON, BAD_MEMBER, DAMAGED, NO_IMAGE, REPEATED, TOO_LARGE, read_shard
from detect.data.formats.shards import (
    BAD_ANNOTATIONS,
    MISSING_SHARD,
    NO_JSON,
    REPEATED_ID,
    REPEATED_NAME,
    find_shards,
    write_shards,
)
from detect.data.images import ImageError
from detect.errors import InputError
from detect.evaluation.detection import evaluate
from detect.evaluation.loop import Conditions
from detect.models.build import build_model
from tests.data.shard_files import document, png, read, read_folder, shards_config, write_tar
from tests.models.yamls import TINY, write_model

AUGMENT = AugmentConfig(mosaic=0.7, mosaic9=0.3, close_mosaic=1, mixup=0.3, degrees=10)
DOG = {"names": ("dog",)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[AnnotationTable, AnnotationTable, Path]:
    """The same split from a folder and from three shards, and the shards' folder."""
    folder = tmp_path_factory.mktemp("shards")
    table = read_folder(folder)
    write_shards({"train": table}, folder / "tar", images_per_shard=5)
    return table, read(folder / "tar"), folder / "tar"


# ------------------------------------------------------------------------------- the same as from a folder


def test_the_same_table(both: tuple[AnnotationTable, AnnotationTable, Path]) -> None:
    folder, shards, _ = both
    assert len(shards) == 12
    for field in dataclasses.fields(AnnotationTable):
        one, other = getattr(folder, field.name), getattr(shards, field.name)
        if isinstance(one, np.ndarray) and field.name not in ("image_paths", "positions"):
            np.testing.assert_array_equal(one, other, field.name)
    assert (shards.names, shards.has_own_ids, shards.is_labelled) == (folder.names, True, True)
    assert not shards.problems
    assert [shards.path(row).name for row in range(12)] == [folder.path(row).name for row in range(12)]
    assert shards.path(5).parent.name == "train-000001.tar"  # five images in each
    assert shards.stored_in(5).is_file()
    assert all(folder.read_bytes(row) == shards.read_bytes(row) for row in range(12))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_training_batches(both: tuple[AnnotationTable, AnnotationTable, Path], workers: int) -> None:
    recipe = DetectionRecipe(epochs=3, batch_size=4, image_size=64, workers=workers, augment=AUGMENT)
    loaders = [TrainingLoader(table, recipe) for table in both[:2]]
    for epoch in (0, 2):
        pairs = list(zip(loaders[0].epoch(epoch), loaders[1].epoch(epoch), strict=True))
        assert len(pairs) == 3
        for one, other in pairs:
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.rows, other.rows)
            assert torch.equal(one.targets.boxes_xyxy_px, other.targets.boxes_xyxy_px)


def test_the_same_in_evaluation(both: tuple[AnnotationTable, AnnotationTable, Path], tmp_path: Path) -> None:
    """The images, also unscaled, what a network finds in them, and its AP."""
    folder, shards, _ = both
    for loader in (lambda table: EvaluationLoader(table, 64, 4, 0), lambda table: OriginalLoader(table, 0)):
        for one, other in zip(loader(folder), loader(shards), strict=True):
            assert torch.equal(one.images, other.images)
    torch.manual_seed(0)
    model = build_model(str(write_model(tmp_path, TINY)), num_classes=3).eval()
    for conv in model.head.predict:
        torch.nn.init.zeros_(conv.bias)  # objects everywhere
    conditions = Conditions(64, batch_size=4, workers=0, device=torch.device("cpu"))
    found = [evaluate(model, table, conditions) for table in (folder, shards)]
    assert found[0].metrics.values == found[1].metrics.values
    assert len(found[0].found.scores) == len(found[1].found.scores) > 0


def test_a_cache_on_the_disk_is_of_these_shards(
    both: tuple[AnnotationTable, AnnotationTable, Path], tmp_path: Path
) -> None:
    cache = build_cache(ImageFiles(both[1], 32), "disk", tmp_path)
    np.testing.assert_array_equal(cache.read(7), ImageFiles(both[0], 32).read(7))
    build_cache(ImageFiles(both[1], 32), "disk", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    os.utime(both[1].stored_in(0), ns=(1, 1))
    build_cache(ImageFiles(both[1], 32), "disk", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_by_the_data_config(both: tuple[AnnotationTable, AnnotationTable, Path]) -> None:
    table = open_split(shards_config(both[2], names=("dog", "brush"), background="drop"), "train")
    assert table.names == ("dog", "brush")
    assert set(table.labels.tolist()) == {0, 1}
    smaller = table.without_background()
    assert 0 < len(smaller) < 12
    assert all(smaller.read(row).shape[:2] == tuple(smaller.sizes_hw[row]) for row in range(len(smaller)))


# --------------------------------------------------------------------------------------- WebDataset itself


READ = """
import pickle, sys, webdataset
samples = list(webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode("rgb8"))
sys.stdout.buffer.write(pickle.dumps(samples))
"""
WRITE = """
import sys, webdataset
with webdataset.ShardWriter(sys.argv[1] + "/train-%06d.tar", maxcount=2, verbose=0) as writer:
    for number in range(5):
        annotations = [{"bbox": [1, 2, 3 + number, 4], "category": "dog"}]
        image = open(f"{sys.argv[1]}/{number}.png", "rb").read()
        writer.write({"__key__": f"deep/{number:04d}", "png": image, "cls": 3, "json": {"annotations": annotations}})
"""


def run_alone(program: str, *arguments: Path) -> bytes:
    """Output of a program in a subprocess, because the library leaves files open."""
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True, stdout=-1).stdout


def test_webdataset_reads_what_is_written(both: tuple[AnnotationTable, AnnotationTable, Path]) -> None:
    pytest.importorskip("webdataset")
    samples = pickle.loads(run_alone(READ, *sorted(both[2].glob("*.tar"))))
    assert len(samples) == 12
    for row, sample in enumerate(samples):
        assert sample["__key__"] == both[0].path(row).stem
        assert len(sample["json"]["annotations"]) == len(both[0].boxes(row)[1])
        assert sample["json"]["file_name"] == both[0].path(row).name
        image = sample["png" if row % 3 else "jpg"]
        assert np.abs(image.astype(int) - both[1].read(row)).mean() < 2  # another JPEG decoder


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(png(value=number))
    run_alone(WRITE, tmp_path)
    table = read(tmp_path, **DOG)
    assert not table.problems
    assert len(find_shards(shards_config(tmp_path), "train")) == 3
    assert table.boxes_xyxy_px.tolist() == [[1, 2, 4 + number, 6] for number in range(5)]
    assert [int(table.read(row)[0, 0, 0]) for row in range(5)] == list(range(5))
    assert (table.has_own_ids, table.image_ids.tolist()) == (False, [1, 2, 3, 4, 5])


# ------------------------------------------------------------------------------------------ which files


def test_numbers_in_braces(tmp_path: Path) -> None:
    for number in range(9, 12):
        write_tar(tmp_path / f"train-{number:03d}.tar", [("a.png", png()), ("a.json", document([1, 1, 5, 5]))])
    config = shards_config(tmp_path, "train-{009..011}.tar")
    assert [path.name[6:9] for path in find_shards(config, "train")] == ["009", "010", "011"]
    assert read(tmp_path, "train-{009..010}.tar", **DOG).problems.count(REPEATED_NAME) == 1
    with pytest.raises(InputError, match=r"train-012.tar: no such file, nor 1 others of train-\{009\.\.013\}"):
        find_shards(shards_config(tmp_path, "train-{009..013}.tar"), "train")
    for pattern in ("{5..4}.tar", "{0..999999999}.tar", "{0..999}{0..999}.tar"):
        with pytest.raises(InputError, match="must name 1 to 100000 files"):
            find_shards(shards_config(tmp_path, pattern), "train")
    with pytest.raises(InputError, match=r"must be 1 to 100000 tar files, such as train-.*; found 0"):
        find_shards(shards_config(tmp_path, "val-*.tar"), "train")
    with pytest.raises(InputError, match=r"no such folder; name the data set's with --data-root"):
        find_shards(shards_config(tmp_path / "nowhere"), "train")


def test_a_shard_that_is_listed_and_missing_is_counted(tmp_path: Path) -> None:
    write_shards({"train": read_folder(tmp_path)}, tmp_path / "tar", images_per_shard=5)
    (tmp_path / "tar/train-000001.tar").unlink()
    table = read(tmp_path / "tar")
    assert table.problems.summary() == [f"1 {MISSING_SHARD}: 'train-000001.tar'"]
    assert len(table) == 7
    with pytest.raises(InputError, match="--strict was asked for"):
        open_split(shards_config(tmp_path / "tar"), "train", strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "dataset.json: is not JSON"),
        ("[]", "must be a mapping with a list of categories"),
        ('{"categories": {}}', "must be a mapping with a list of categories"),
        ('{"categories": [], "shards": 3}', "shards: must be a list"),
        ('{"categories": []}', "categories: is empty"),
        ('{"categories": [{"id": true, "name": "a"}]}', "has no id"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"categories": [{"id": 1, "name": "cat"}]}', "names: 'dog' is no category"),
    ],
)
def test_dataset_files_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    write_tar(tmp_path / "train-0.tar", [("a.png", png()), ("a.json", document())])
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path, **DOG)


def test_classes_must_be_known(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", [("a.png", png()), ("a.json", document())])
    with pytest.raises(InputError, match=r"dataset.json: no such file, so the classes are not known"):
        read(tmp_path)


# ------------------------------------------------------------------------------------------- the index


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = ("c.png", png()[:-20])
    members = [("a.png", png()), ("a.json", document([1, 1, 5, 5])), ("b.json", b"{}"), damaged, ("c.json", b"{}")]
    write_tar(tmp_path / "train-0.tar", [("../x.png", png()), *members])
    first = read(tmp_path, **DOG)
    assert (tmp_path / "train.index.json").is_file()
    monkeypatch.setattr(shard_index, "read_shard", lambda path: pytest.fail("read again"))
    again = read(tmp_path, **DOG)
    assert first.problems.summary() == again.problems.summary()
    assert len(first.problems.summary()) == 3
    np.testing.assert_array_equal(again.read(0), first.read(0))
    monkeypatch.undo()
    write_tar(tmp_path / "train-0.tar", [("b.png", png(value=9)), ("b.json", document())])
    assert read(tmp_path, **DOG).path(0).name == "b.png"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"[]",
        lambda content: b"[" * 100_000,
        lambda content: content[:-5],
        lambda content: content.replace(b'"version": 2', b'"version": 99'),
        lambda content: content.replace(b'"offset": 512', b'"offset": -1'),
        lambda content: content.replace(b'"offset": 512', b'"offset": 99999999'),
        lambda content: content.replace(b'"offset": 512', b'"offset": 512.5'),
        lambda content: content.replace(b'"name": "a.png"', b'"name": "../a.png"'),
        lambda content: content.replace(b'"name": "a.png"', b'"nome": "a.png"'),
        lambda content: content.replace(b'"damage": ""', b'"damage": 3'),
    ],
)
def test_an_index_that_cannot_be_is_made_anew(tmp_path: Path, damage) -> None:
    write_tar(tmp_path / "train-0.tar", [("a.png", png()), ("a.json", document([1, 1, 5, 5]))])
    read(tmp_path, **DOG)
    index = tmp_path / "train.index.json"
    content = index.read_bytes()
    assert damage(content) != content
    index.write_bytes(damage(content))
    assert read(tmp_path, **DOG).read(0).shape == (20, 30, 3)
    assert index.read_bytes() == content


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shard_index, "write_text", refuse)
    write_tar(tmp_path / "train-0.tar", [("a.png", png()), ("a.json", document())])
    with caplog.at_level(logging.INFO, "detect"):
        assert len(read(tmp_path, **DOG)) == 1
    assert "cannot be written (Permission denied), so the shards are read again next time" in caplog.text


# --------------------------------------------------------------------------------------------- damage


GOOD = [("good.png", png()), ("good.json", document([1, 1, 5, 5]))]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ([("../up.png", png())], BAD_MEMBER),
        ([("/etc/passwd.png", png())], BAD_MEMBER),
        ([("a//b.png", png())], BAD_MEMBER),
        ([("\x1b[31mred.png", png())], BAD_MEMBER),
        ([("n" * 300 + ".png", png())], BAD_MEMBER),
        ([("._good.png", png())], BAD_MEMBER),
        ([special("link.png", tarfile.SYMTYPE, "/etc/passwd")], BAD_MEMBER),
        ([special("hard.png", tarfile.LNKTYPE, "good.png")], BAD_MEMBER),
        ([special("device.png", tarfile.CHRTYPE)], BAD_MEMBER),
        ([special("pipe.png", tarfile.FIFOTYPE)], BAD_MEMBER),
        ([special("sparse.png", tarfile.GNUTYPE_SPARSE)], BAD_MEMBER),
        ([("x.png", png()), ("x.png", png()), ("x.json", document())], REPEATED),
        ([("x.png", png()), ("x.json", document()), ("x.json", document())], REPEATED),
        ([("x.json", document())], NO_IMAGE),
        ([("x.png", png())], NO_JSON),
        ([("x.png", png()), ("x.json", b"{}")], NO_JSON),
        ([("x.png", png()), ("x.json", b'{"annotations": 3}')], BAD_ANNOTATIONS),
        ([("x.png", png()), ("x.json", b"[]")], BAD_JSON),
        ([("x.png", png()), ("x.json", b"\xff{")], BAD_JSON),
        ([("x.png", png()), ("x.json", b"[" * 100_000)], BAD_JSON),
        ([("x.png", b"\x80\x04."), ("x.json", document())], BAD_IMAGE),
        ([("x.png", png()[:-30]), ("x.json", document())], BAD_IMAGE),
        ([("x.png", b""), ("x.json", document())], BAD_IMAGE),
        ([("x.png", png()), ("x.json", document(width=31, height=20))], WRONG_SIZE),
        ([("x.png", png()), ("x.json", document(["a", 1, 2, 3]))], BAD_ANNOTATION),
        ([("x.png", png()), ("x.json", document([float("nan"), 1, 2, 3]))], NOT_FINITE),
        (
            [("x.png", png()), ("x.json", b'{"annotations": [{"bbox": [1,1,5,5], "category": "cow"}]}')],
            UNKNOWN_CATEGORY,
        ),
        ([("x.png", png()), ("x.json", b'{"annotations": [7]}')], BAD_ANNOTATION),
    ],
)
def test_each_damage_is_counted(tmp_path: Path, members: list, kind: str) -> None:
    """The other files of the sample are read."""
    write_tar(tmp_path / "train-0.tar", [*members, *GOOD])
    table = read(tmp_path, **DOG)
    assert table.problems.count(kind) == 1, table.problems.summary()
    assert "good.png" in [table.path(row).name for row in range(len(table))]
    assert [1, 1, 6, 6] in table.boxes_xyxy_px.tolist()
    assert all(line.isprintable() for line in table.problems.summary())


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_index, "MAX_JSON_BYTES", 200)
    write_tar(tmp_path / "train-0.tar", [("x.png", png()), ("x.json", document(note="n" * 200)), *GOOD])
    assert read(tmp_path, **DOG).problems.count(TOO_LARGE) == 1
    monkeypatch.setattr(shard_index, "MAX_MEMBERS", 3)
    with pytest.raises(InputError, match="has more than 3 files; refused"):
        read_shard(tmp_path / "train-0.tar")


def test_ids_that_stand_twice(tmp_path: Path) -> None:
    members = [
        (f"{n}{suffix}", content) for n in "ab" for suffix, content in ((".png", png()), (".json", document(id=7)))
    ]
    write_tar(tmp_path / "train-0.tar", members)
    table = read(tmp_path, **DOG)
    assert (table.problems.count(REPEATED_ID), table.image_ids.tolist(), table.has_own_ids) == (1, [1, 2], False)


def test_a_split_without_annotations(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "train-0.tar", [("a.png", png()), ("b.PNG", png()), ("b.json", b'{"width": 30, "height": 20}')]
    )
    table = read(tmp_path, **DOG)
    assert (len(table), table.is_labelled, bool(table.problems)) == (2, False, False)


def tar_bytes(tmp_path: Path) -> bytes:
    """Two samples: four headers and four contents of at most a block, so 8 blocks of 512 bytes, then the end mark."""
    members = [("a.png", png()), ("a.json", document()), *GOOD]
    assert all(len(content) <= 512 for _, content in members)
    return write_tar(tmp_path / "whole.tar", members).read_bytes()


@pytest.mark.parametrize(
    ("blocks", "left"),
    [(8, 2), (7.5, 2), (7, 1), (6.5, 1), (6, 1), (4.2, 1), (3.9, 1), (3, 0), (1.5, 0), (0.5, 0), (0, 0)],
)
def test_a_truncated_shard(tmp_path: Path, blocks: float, left: int) -> None:
    """Samples that are whole stay; one whose JSON is missing has no annotations, and is skipped for that."""
    content = tar_bytes(tmp_path)
    (tmp_path / "train-0.tar").write_bytes(content[: int(blocks * 512)])
    write_tar(tmp_path / "train-1.tar", [("z.png", png()), ("z.json", document())])
    table = read(tmp_path, **DOG)
    assert table.problems.count(DAMAGED) == 1
    assert len(table) == left + 1


def test_a_truncated_last_content_is_seen(tmp_path: Path) -> None:
    """7.5 blocks: the last JSON is shorter than half a block, but its padding and the end mark are missing."""
    content = tar_bytes(tmp_path)
    (tmp_path / "train-0.tar").write_bytes(content[: int(7.1 * 512)])
    assert read(tmp_path, **DOG).problems.summary()[0].startswith(f"1 {DAMAGED}: train-0.tar: ")


def with_size(content: bytes, block: int, field: bytes) -> bytes:
    """A header's size replaced, and its checksum mended."""
    header = bytearray(content[block * 512 : (block + 1) * 512])
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[: block * 512] + bytes(header) + content[(block + 1) * 512 :]


@pytest.mark.parametrize(
    "field",
    [
        b"77777777777\0",  # 8 GiB
        b"\xff" * 10 + b"\xfc\x00",  # -1024: back to where it was, for ever
        b"\xff" * 12,  # -1
        b"\x80" + b"\x7f" * 11,  # beyond 64 bits
        b"not a number",
    ],
)
@pytest.mark.parametrize("block", [0, 4])
def test_sizes_that_lead_astray(tmp_path: Path, field: bytes, block: int) -> None:
    (tmp_path / "train-0.tar").write_bytes(with_size(tar_bytes(tmp_path), block, field))
    write_tar(tmp_path / "train-1.tar", [("z.png", png()), ("z.json", document())])
    table = read(tmp_path, **DOG)
    assert table.problems.count(DAMAGED) == 1
    assert len(table) == (1 if block == 0 else 2)


def test_long_headers_are_refused(tmp_path: Path) -> None:
    """A long name is a file of its own in a tar file; 1 MB of name is none, nor are a thousand, one in another."""
    for number, length in enumerate((5_000, 1_000_000)):
        write_tar(tmp_path / f"train-{number}.tar", [*GOOD, ("d/" * (length // 2) + "x.png", png())])
    chain = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    write_tar(tmp_path / "train-2.tar", [*GOOD, *[chain] * 2000])
    table = read(tmp_path, **DOG)
    assert (table.problems.count(BAD_MEMBER), table.problems.count(DAMAGED), len(table)) == (1, 2, 3)


@pytest.mark.parametrize(("mode", "program"), [("w:gz", "gunzip"), ("w:bz2", "bunzip2"), ("w:xz", "unxz")])
def test_compressed_shards_are_refused(tmp_path: Path, mode: str, program: str) -> None:
    write_tar(tmp_path / "train-0.tar", list(GOOD), mode=mode)
    with pytest.raises(InputError, match=rf"train-0.tar: is compressed, .*: {program} it$"):
        read(tmp_path, **DOG)


def test_shards_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").write_bytes(b"PK\x03\x04" * 1000)
    (tmp_path / "train-1.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"train-0.tar: nothing can be used of 2 shards: 2 shards that are damaged"):
        read(tmp_path, **DOG)
    (tmp_path / "train-0.tar").unlink()
    (tmp_path / "train-0.tar").mkdir()
    with pytest.raises(InputError, match=r"train-0.tar: is not a file"):
        read(tmp_path, **DOG)


@pytest.mark.slow
def test_mutated_shards(tmp_path: Path) -> None:
    """Whatever a byte is: an error in one line, or a table whose images can be read or say that they cannot."""
    content = tar_bytes(tmp_path)
    rng = np.random.default_rng(0)
    path = tmp_path / "train-0.tar"
    messages = []
    for _ in range(3000):
        mutated = bytearray(content)
        for position in rng.integers(0, 9 * 512, rng.integers(1, 5)):
            mutated[position] = rng.integers(256)
        path.write_bytes(mutated)
        try:
            table = read(tmp_path, **DOG)
            for row in range(len(table)):
                table.read(row)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not any("\n" in message for message in messages)


# --------------------------------------------------------------------------------- while it is in use


def test_a_shard_that_shrinks_or_vanishes(tmp_path: Path) -> None:
    """Images beyond the end are reported when they are read, as missing files are."""
    path = write_tar(tmp_path / "train-0.tar", [("a.png", png()), ("a.json", document()), *GOOD])
    table = read(tmp_path, **DOG)
    os.truncate(path, 3 * 512)
    assert table.read(0).shape == (20, 30, 3)
    with pytest.raises(ImageError, match=r"train-0.tar/good.png: is truncated \(its tar file ends before\)"):
        table.read(1)
    path.unlink()
    with pytest.raises(ImageError, match=r"train-0.tar/good.png: cannot be read: No such file"):
        pickle.loads(pickle.dumps(table)).read(1)


def num_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_files_are_open_and_none_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_images, "MAX_OPEN", 3)
    for number in range(8):
        write_tar(
            tmp_path / f"train-{number}.tar", [(f"{number}.png", png(value=number)), (f"{number}.json", document())]
        )
    table = read(tmp_path, **DOG)
    before = num_open()
    assert [int(table.read(row)[0, 0, 0]) for row in (*range(8), 0)] == [*range(8), 0]
    assert num_open() - before == 3
    copy = pickle.loads(pickle.dumps(table))
    assert num_open() - before == 3
    del table
    assert num_open() == before
    assert copy.read(3)[0, 0, 0] == 3


def test_a_pickled_table_reads_the_same_images(both: tuple[AnnotationTable, AnnotationTable, Path]) -> None:
    """As worker processes get it: descriptors stay behind."""
    table = both[1]
    expected = [table.read_bytes(row) for row in range(12)]
    copy = pickle.loads(pickle.dumps(table))
    assert [copy.read_bytes(row) for row in range(12)] == expected


def test_forked_processes_share_what_is_open(both: tuple[AnnotationTable, AnnotationTable, Path]) -> None:
    """A position that processes shared would make them read each other's images."""
    table = both[1]
    expected = [table.read_bytes(row) for row in range(12)]
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            same = all(table.read_bytes(row) == expected[row] for _ in range(50) for row in range(12))
            os._exit(0 if same else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


def test_the_config_of_a_classifier_is_refused(both: tuple[AnnotationTable, AnnotationTable, Path]) -> None:
    from detect.data.classification.datasets import open_class_split

    with pytest.raises(InputError, match="shards"):
        open_class_split(shards_config(both[2]), "train")
