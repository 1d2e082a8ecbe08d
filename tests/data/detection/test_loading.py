from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.config.augment import AlbumentationConfig, AugmentConfig
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable, encode_paths, offsets_of
from detect.data.detection.loading import EvaluationLoader, TrainingLoader
from detect.data.images import read_header, write_image
from detect.data.letterbox import PAD_VALUE, unletterbox
from detect.errors import InputError
from detect.structures import Batch

S = 64
PLAIN = AugmentConfig(
    mosaic=0,
    degrees=0,
    translate=0,
    scale=0,
    shear=0,
    perspective=0,
    flip_left_right=0,
    hsv_hue=0,
    hsv_saturation=0,
    hsv_value=0,
)
EVERYTHING = AugmentConfig(
    mosaic=0.7,
    mosaic9=0.3,
    close_mosaic=1,
    mixup=0.3,
    cutmix=0.3,
    degrees=10,
    shear=2,
    perspective=0.0005,
    flip_up_down=0.5,
    rotate90=0.5,
    albumentations=(AlbumentationConfig("GaussNoise", 0.5), AlbumentationConfig("HorizontalFlip", 0.5)),
)


def table_of(folder: Path, num_images: int, boxes_per_image: int = 2, seed: int = 0) -> AnnotationTable:
    """Images of random shapes, black, with a white rectangle where each box is; every third image has no boxes."""
    rng = np.random.default_rng(seed)
    paths, sizes, boxes, counts = [], [], [], []
    for row in range(num_images):
        height, width = (int(v) for v in rng.integers(40, 160, size=2))
        image = np.zeros((height, width, 3), dtype=np.uint8)
        counts.append(0 if row % 3 == 2 else boxes_per_image)
        for _ in range(counts[-1]):
            x1, y1 = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
            x2, y2 = x1 + int(rng.integers(8, 20)), y1 + int(rng.integers(8, 20))
            image[y1:y2, x1:x2] = 255
            boxes.append([x1, y1, x2, y2])
        paths.append(folder / f"{seed}-{row}.png")
        sizes.append((height, width))
        write_image(paths[-1], image)
    return AnnotationTable(
        image_paths=encode_paths(paths),
        image_ids=np.arange(1, num_images + 1),
        has_own_ids=False,
        sizes_hw=np.array(sizes, dtype=np.int32),
        box_offsets=offsets_of(np.array(counts)),
        boxes_xyxy_px=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.arange(len(boxes)) % 3,
        is_crowd=np.zeros(len(boxes), dtype=bool),
        areas=np.ones(len(boxes)),
        names=("a", "b", "c"),
        category_ids=np.arange(1, 4),
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    return table_of(tmp_path_factory.mktemp("images"), 40)


@pytest.fixture(scope="module")
def few(table: AnnotationTable) -> AnnotationTable:
    """Two batches of images."""
    return table.select(np.arange(40) < 16)


def recipe(augment: AugmentConfig = EVERYTHING, **changes) -> DetectionRecipe:
    settings = {"epochs": 3, "batch_size": 8, "image_size": S, "workers": 0, "seed": 1, "augment": augment, **changes}
    return DetectionRecipe(**settings)


def content(batch: Batch) -> tuple[bytes, ...]:
    targets = batch.targets
    tensors = (batch.images, batch.rows, targets.image_index, targets.labels, targets.boxes_xyxy_px)
    return tuple(tensor.numpy().tobytes() for tensor in tensors)


def check_batch(batch: Batch, num_images: int, image_size: int) -> None:
    """What holds for every training batch."""
    assert batch.images.shape == (num_images, image_size, image_size, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert (batch.rows.shape, batch.rows.dtype) == ((num_images,), torch.int64)
    targets = batch.targets
    assert targets.image_index.dtype == targets.labels.dtype == torch.int64
    assert targets.boxes_xyxy_px.dtype == torch.float32
    assert targets.boxes_xyxy_px.shape == (len(targets), 4)
    if len(targets):
        boxes = targets.boxes_xyxy_px
        assert boxes.min() >= 0
        assert boxes.max() <= image_size
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= 1.4
        assert targets.image_index.max() < num_images
        assert (targets.image_index.diff() >= 0).all()


# ------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("augment", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_no_boxes_at_all(augment: AugmentConfig, tmp_path: Path) -> None:
    loader = TrainingLoader(table_of(tmp_path, 9, boxes_per_image=0), recipe(augment))
    for batch in loader.epoch(0):
        check_batch(batch, 8, S)
        assert len(batch.targets) == 0


@pytest.mark.parametrize("augment", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_one_image(augment: AugmentConfig, tmp_path: Path) -> None:
    batches = list(TrainingLoader(table_of(tmp_path, 1), recipe(augment)).epoch(0))
    assert len(batches) == 1
    check_batch(batches[0], 1, S)


def test_batches(table: AnnotationTable) -> None:
    loader = TrainingLoader(table, recipe())
    for epoch in (0, 2):  # with mosaics, and without
        batches = list(loader.epoch(epoch))
        assert len(batches) == len(loader) == 5
        for batch in batches:
            check_batch(batch, 8, S)
            assert batch.letterboxes == ()
        assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(40))


def test_cache_changes_nothing(few: AnnotationTable, tmp_path: Path) -> None:
    without = [content(batch) for batch in TrainingLoader(few, recipe()).epoch(0)]
    for cache, workers in (("ram", 0), ("disk", 1)):
        cached = TrainingLoader(few, recipe(cache=cache, workers=workers), tmp_path)
        assert [content(batch) for batch in cached.epoch(0)] == without


def test_plain_training_sees_what_evaluation_sees(table: AnnotationTable) -> None:
    """Without augmentation, an image is in the top left corner and its boxes are those of the evaluation loader."""
    seen = {}
    for batch in EvaluationLoader(table, S, 1, workers=0):
        seen[int(batch.rows[0])] = batch
    for batch in TrainingLoader(table, recipe(PLAIN)).epoch(0):
        for index, row in enumerate(batch.rows.tolist()):
            height, width = seen[row].images.shape[1:3]
            torch.testing.assert_close(batch.images[index, :height, :width], seen[row].images[0])
            assert (batch.images[index, height:] == PAD_VALUE).all()
            here = batch.targets.image_index == index
            torch.testing.assert_close(batch.targets.boxes_xyxy_px[here], seen[row].targets.boxes_xyxy_px)


def test_boxes_are_where_the_paint_is(table: AnnotationTable) -> None:
    """Under mosaic, zoom, shift, flips and turns, what lies inside the boxes is white, and white lies inside boxes."""
    augment = dataclasses.replace(PLAIN, mosaic=0.8, mosaic9=0.3, scale=0.3, flip_left_right=0.5, rotate90=0.7)
    inside, total = 0.0, 0.0
    for batch in TrainingLoader(table, recipe(augment, image_size=256)).epoch(0):
        white = (batch.images[..., 0] > 180).float()
        covered = torch.zeros_like(white)
        for index, box in zip(batch.targets.image_index, batch.targets.boxes_xyxy_px.round().long(), strict=True):
            x1, y1, x2, y2 = box.tolist()
            covered[index, y1:y2, x1:x2] = 1
            assert white[index, y1:y2, x1:x2].mean() > 0.7
        inside += float((white * covered).sum())
        total += float(white.sum())
    assert inside / total > 0.98  # the rest: slivers that are too thin to learn, and blurred rims


def test_crowd_regions_are_not_trained_on(table: AnnotationTable) -> None:
    crowded = dataclasses.replace(table, is_crowd=table.labels == 1)
    labels = torch.cat([batch.targets.labels for batch in TrainingLoader(crowded, recipe()).epoch(0)])
    assert set(labels.tolist()) == {0, 2}


def test_mosaic_is_closed_at_the_end(few: AnnotationTable) -> None:
    """In the last epoch the images are as in plain training; before, they are not."""
    loader = TrainingLoader(few, recipe(dataclasses.replace(PLAIN, mosaic=1, mixup=0.5, close_mosaic=1), epochs=3))
    plain = TrainingLoader(few, recipe(PLAIN))
    assert [content(batch) for batch in loader.epoch(2)] == [content(batch) for batch in plain.epoch(2)]
    assert [content(batch) for batch in loader.epoch(1)] != [content(batch) for batch in plain.epoch(1)]


def test_epochs_without_mosaics_need_only_a_rectangle(tmp_path: Path) -> None:
    # 90 x 160 at 128 px is 72 x 128; in multiples of 32 that is 96 x 128.
    table = dataclasses.replace(table_of(tmp_path, 4), sizes_hw=np.full((4, 2), (90, 160), dtype=np.int32))
    for row in range(4):
        write_image(table.path(row), np.zeros((90, 160, 3), dtype=np.uint8))
    loader = TrainingLoader(table, recipe(AugmentConfig(close_mosaic=1), epochs=2, image_size=128))
    assert [next(loader.epoch(number)).images.shape[1:3] for number in (0, 1)] == [(128, 128), (96, 128)]
    turning = TrainingLoader(table, recipe(AugmentConfig(mosaic=0, rotate90=0.5), image_size=128))
    assert next(turning.epoch(0)).images.shape[1:3] == (128, 128)  # a quarter turn needs the square
    # In multiples of 64, 72 x 128 needs 128 x 128; of 8, nothing is added.
    coarse, fine = (TrainingLoader(table, recipe(PLAIN, image_size=128), multiple=multiple) for multiple in (64, 8))
    assert [next(loader.epoch(0)).images.shape[1:3] for loader in (coarse, fine)] == [(128, 128), (72, 128)]


@pytest.mark.parametrize(
    ("name", "shape_hw"),
    [("RandomRotate90", (128, 128)), ("Transpose", (128, 128)), ("D4", (128, 128)), ("GaussNoise", (96, 128))],
)
def test_geometric_transforms_of_the_library_get_squares(name: str, shape_hw: tuple[int, int], tmp_path: Path) -> None:
    """They may exchange height and width, by chance; colour may have the rectangle."""
    table = dataclasses.replace(table_of(tmp_path, 8), sizes_hw=np.full((8, 2), (90, 160), dtype=np.int32))
    for row in range(8):
        write_image(table.path(row), np.zeros((90, 160, 3), dtype=np.uint8))
    augment = dataclasses.replace(PLAIN, albumentations=(AlbumentationConfig("Blur"), AlbumentationConfig(name, 0.5)))
    loader = TrainingLoader(table, recipe(augment, image_size=128))
    for epoch in range(2):
        assert [batch.images.shape[1:3] for batch in loader.epoch(epoch)] == [shape_hw]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_is_grey_and_reported_once(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(tmp_path, 8)
    table.path(3).write_bytes(table.path(3).read_bytes()[:60])
    loader = TrainingLoader(table, recipe(PLAIN, workers=workers))
    with caplog.at_level(logging.WARNING, "detect"):
        for epoch in range(2):
            (batch,) = loader.epoch(epoch)
            index = batch.rows.tolist().index(3)
            assert (batch.images[index] == PAD_VALUE).all()
            assert index not in batch.targets.image_index
    first, *totals = caplog.messages
    assert "0-3.png" in first
    assert "is replaced by grey" in first
    assert totals == ["unreadable so far: 1 of 8 images (grey in training)"] * 2
    assert list(loader.unreadable) == [3]


def test_strict_refuses_damaged_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, workers = table_of(tmp_path, 8), 0
    assert len(list(TrainingLoader(table, recipe(workers=workers), strict=True).epoch(0))) == 1
    assert len(list(EvaluationLoader(table, S, 8, workers, strict=True))) > 0
    table.path(3).write_bytes(table.path(3).read_bytes()[:60])
    with pytest.raises(InputError, match=r"0-3\.png: is truncated .*; refused, because --strict was asked for"):
        list(TrainingLoader(table, recipe(workers=workers), strict=True).epoch(0))
    with pytest.raises(InputError, match=r"0-3\.png: is truncated .*; refused, because --strict was asked for"):
        list(EvaluationLoader(table, S, 8, workers, strict=True))
    assert caplog.messages == []


@pytest.mark.parametrize(("close_mosaic", "mosaic", "warns"), [(2, 1, False), (3, 1, True), (4, 0, False)])
def test_mosaics_that_never_happen(
    close_mosaic: int, mosaic: float, warns: bool, table: AnnotationTable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "detect"):
        TrainingLoader(table, recipe(dataclasses.replace(PLAIN, mosaic=mosaic, close_mosaic=close_mosaic), epochs=3))
    expected = "augment.close_mosaic 3 is not less than epochs 3, so mosaic, mixup and cutmix never happen"
    assert caplog.messages == [expected] * warns


def test_damaged_image_in_a_mosaic(tmp_path: Path) -> None:
    table = table_of(tmp_path, 8)
    table.path(3).unlink()
    loader = TrainingLoader(table, recipe())
    for batch in loader.epoch(0):
        check_batch(batch, 8, S)
    assert list(loader.unreadable) == [3]


def test_mistakes(table: AnnotationTable) -> None:
    nothing = dataclasses.replace(table, image_ids=np.zeros(0, dtype=np.int64))
    with pytest.raises(InputError, match="no images"):
        TrainingLoader(nothing, recipe())
    with pytest.raises(InputError, match="no annotations"):
        TrainingLoader(dataclasses.replace(table, is_labelled=False), recipe())
    with pytest.raises(InputError, match=r"mixup 0\.7 and cutmix 0\.5 exclude each other"):
        TrainingLoader(table, recipe(AugmentConfig(mixup=0.7, cutmix=0.5)))
    with pytest.raises(InputError, match="image_size: must be a multiple of 128 for this model, found 64"):
        TrainingLoader(table, recipe(), multiple=128)
    with pytest.raises(InputError, match="did you mean 'Blur'"):
        TrainingLoader(table, recipe(AugmentConfig(albumentations=(AlbumentationConfig("Blurr"),)), workers=2))


@pytest.mark.slow
def test_forkserver_workers(tmp_path: Path) -> None:
    """The default from Python 3.14 on: everything that goes to a worker is pickled."""
    script = tmp_path / "load.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_loading import TrainingLoader, content, recipe, table_of\n"
        "if __name__ == '__main__':\n"
        "    torch.multiprocessing.set_start_method('forkserver')\n"
        "    table = table_of(Path(sys.argv[1]), 20)\n"
        "    expected = [content(batch) for batch in TrainingLoader(table, recipe()).epoch(0)]\n"
        "    for cache in ('none', 'ram', 'disk'):\n"
        "        loader = TrainingLoader(table, recipe(workers=1, cache=cache), Path(sys.argv[1]))\n"
        "        assert [content(batch) for batch in loader.epoch(0)] == expected, cache\n"
        "    print('equal')\n"
    )
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "equal\n", done.stderr


# ----------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_each_image_once(table: AnnotationTable, workers: int) -> None:
    loader = EvaluationLoader(table, S, 16, workers)
    batches = list(loader)
    # Padded to multiples of 32 there are three shapes, of 6, 29 and 5 images; a batch has one shape.
    assert [len(batch.rows) for batch in batches] == [6, 16, 13, 5]
    assert len(loader) == 4
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(40))
    for batch in batches:
        assert batch.images.shape[0] == len(batch.rows) == len(batch.letterboxes)
        assert 0 < batch.preprocess_seconds < 60
        assert max(batch.images.shape[1:3]) == S
        assert all(side % 32 == 0 for side in batch.images.shape[1:3])


def test_evaluation_boxes_come_back(table: AnnotationTable) -> None:
    for batch in EvaluationLoader(table, S, 7, workers=0):
        for index, (row, placement) in enumerate(zip(batch.rows.tolist(), batch.letterboxes, strict=True)):
            here = batch.targets.image_index == index
            back = unletterbox(batch.targets.boxes_xyxy_px[here].numpy(), placement)
            np.testing.assert_allclose(back, table.boxes(row)[0], atol=1e-3)
            assert placement.image_hw == tuple(table.sizes_hw[row])


def test_evaluation_pads_little(table: AnnotationTable) -> None:
    """Wide images come first, tall ones last, and neither is padded to a square."""
    shapes = [batch.images.shape[1:3] for batch in EvaluationLoader(table, 160, 8, workers=0)]
    assert shapes[0][0] < shapes[0][1]
    assert shapes[-1][0] > shapes[-1][1]


@pytest.mark.parametrize("multiple", [8, 64])
def test_evaluation_pads_to_what_the_model_needs(table: AnnotationTable, multiple: int) -> None:
    for batch in EvaluationLoader(table, 128, 8, workers=0, multiple=multiple):
        sizes = np.array([np.array(at.image_hw) * at.scale_xy[::-1] for at in batch.letterboxes]).round().astype(int)
        expected = -(-sizes.max(axis=0) // multiple) * multiple
        assert batch.images.shape[1:3] == tuple(expected)


def test_evaluation_padding_is_that_of_the_image_alone(table: AnnotationTable) -> None:
    def shapes(batch_size: int) -> dict[int, tuple[int, ...]]:
        batches = EvaluationLoader(table, 160, batch_size, workers=0)
        return {row: tuple(batch.images.shape[1:3]) for batch in batches for row in batch.rows.tolist()}

    assert shapes(8) == shapes(1)
    assert len(set(shapes(8).values())) > 2


def test_evaluation_of_an_unlabelled_split(table: AnnotationTable) -> None:
    bare = dataclasses.replace(
        table,
        box_offsets=np.zeros(41, dtype=np.int64),
        boxes_xyxy_px=np.zeros((0, 4)),
        labels=np.zeros(0, dtype=np.int64),
        is_crowd=np.zeros(0, dtype=bool),
        is_labelled=False,
    )
    assert [len(batch.targets) for batch in EvaluationLoader(bare, S, 20, workers=0)] == [0] * 4


def test_evaluation_of_nothing(table: AnnotationTable) -> None:
    nothing = dataclasses.replace(
        table, image_ids=np.zeros(0, dtype=np.int64), sizes_hw=np.zeros((0, 2), dtype=np.int32)
    )
    assert list(EvaluationLoader(nothing, S, 4, workers=0)) == []


def test_evaluation_leaves_damaged_images_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = table_of(tmp_path, 3)
    table.path(1).write_bytes(b"no image")
    loader = EvaluationLoader(table, S, 1, workers=0)
    with caplog.at_level(logging.WARNING, "detect"):
        assert sorted(int(batch.rows[0]) for batch in loader) == [0, 2]
        assert len(list(loader)) == 2
    first, *totals = caplog.messages
    assert "0-1.png" in first
    assert "its objects count as missed" in first
    assert totals == ["unreadable so far: 1 of 3 images (their objects count as missed)"] * 2
    assert list(loader.unreadable) == [1]


# ------------------------------------------------------------------------------------------- real data


def test_real_images(real_data: Path) -> None:
    paths = sorted((real_data / "tiny_coco").rglob("*.jpg"))[:16]
    table = AnnotationTable(
        image_paths=encode_paths(paths),
        image_ids=np.arange(1, 17),
        has_own_ids=False,
        sizes_hw=np.array([read_header(path).size_hw for path in paths], dtype=np.int32),
        box_offsets=np.arange(17),
        boxes_xyxy_px=np.tile(np.array([[50, 50, 150, 150.0]]), (16, 1)),
        labels=np.zeros(16, dtype=np.int64),
        is_crowd=np.zeros(16, dtype=bool),
        areas=np.full(16, 1e4),
        names=("thing",),
        category_ids=np.array([1]),
    )
    loader = TrainingLoader(table, recipe(image_size=160))
    batches = list(loader.epoch(0))
    for batch in batches:
        check_batch(batch, 8, 160)
    assert sum(len(batch.targets) for batch in batches) > 16
    assert loader.unreadable == {}
