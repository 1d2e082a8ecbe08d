"""Every key of a YAML is in use: a shipped config names it, or a test shows its effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.config.describe import describe_keys
from detect.config.yaml_files import CONFIGS, load_yaml

TESTS = Path(__file__).parents[1]

EFFECTS = {
    "anchors.method": "boxes/test_anchors.py::test_one_anchor_by_iou_is_the_arithmetic_mean",
    "anchors.min_recall": "training/test_detection.py::test_the_recall_that_is_enough",
    "augment.albumentations": "data/detection/test_loading.py::test_geometric_transforms_of_the_library_get_squares",
    "augment.albumentations.args": "data/detection/test_albumentations_stage.py::test_boxes_and_labels_move_along",
    "augment.albumentations.name": "data/detection/test_albumentations_stage.py::test_boxes_and_labels_move_along",
    "augment.albumentations.p": "data/detection/test_albumentations_stage.py::test_probability_zero",
    "augment.auto_augment": "data/classification/test_augment.py::test_auto_augment_is_that_of_the_library",
    "augment.contrast": "data/classification/test_augment.py::test_colour_by_hand",
    "augment.copy_paste": "data/detection/test_copy_paste.py::test_in_training_samples",
    "augment.copy_paste_copies": "data/detection/test_copy_paste.py::test_copies_are_where_nothing_was",
    "augment.copy_paste_px": "data/detection/test_copy_paste.py::test_only_small_objects_that_stand_alone",
    "augment.cutmix_alpha": "data/classification/test_mixing.py::test_small_alpha_often_cuts_nothing",
    "augment.cutout": "data/classification/test_augment.py::test_cutout_by_hand",
    "augment.mixup": "data/detection/test_sampling.py::test_probabilities",
    "augment.mixup_alpha": "data/classification/test_mixing.py::test_small_alpha_mixes_little",
    "augment.mosaic9": "data/detection/test_sampling.py::test_probabilities",
    "augment.perspective": "data/detection/test_geometry.py::test_moves",
    "augment.rotate90": "data/detection/test_loading.py::test_boxes_are_where_the_paint_is",
    "background": "training/test_detection.py::test_background",
    "checkpoint_minutes": "training/test_loop.py::test_checkpoints_within_an_epoch",
    "classes": "training/test_detection.py::test_some_of_the_classes",
    "data": "sweep/test_space.py::test_paths_do_not_depend_on_the_current_folder",
    "data_root": "sweep/test_space.py::test_data_that_is_not_there",
    "evaluation.patience": "training/test_loop.py::test_early_stopping",
    "evaluation.save_best": "training/test_loop.py::test_best_checkpoints_and_when_to_look",
    "freeze": "training/test_preparation.py::test_what_is_frozen_does_not_move",
    "logger": "training/test_loggers.py::test_the_experiments_loggers",
    "loss.anchor_ratio": "training/test_detection.py::test_the_anchor_ratio_counts",
    "loss.assignment": "losses/test_detection.py::test_assignment",
    "loss.balance": "losses/test_detection.py::test_balance_weighs_the_levels",
    "loss.class_loss": "losses/test_dynamic.py::test_varifocal",
    "loss.focal_gamma": "losses/test_detection.py::test_focal_loss",
    "loss.iou_power": "losses/test_alignment.py::test_score_and_place_make_the_alignment",
    "loss.label_smoothing": "losses/test_detection.py::test_label_smoothing",
    "loss.nearest_cells": "losses/test_alignment.py::test_a_tiny_object_has_the_nearest_cells",
    "loss.objectness": "losses/test_detection.py::test_the_goal_of_the_objectness_is_constant",
    "loss.score_power": "losses/test_alignment.py::test_score_and_place_make_the_alignment",
    "loss.top_k": "losses/test_alignment.py::test_as_one_by_one",
    "max_pixels": "data/test_value_range.py::test_large_images_are_used_where_the_data_config_allows",
    "multi_scale": "training/test_epoch.py::test_multi_scale",
    "model": "sweep/test_space.py::test_paths_do_not_depend_on_the_current_folder",
    "optimizer.mask_decay": "training/test_optimizer.py::test_convolutions_without_decay",
    "precision": "training/test_loop.py::test_the_chosen_precision_is_kept",
    "range": "data/test_value_range.py::test_the_data_config_states_it",
    "range.percentiles": "data/test_value_range.py::test_three_ways_to_write_it",
    "recipe": "sweep/test_space.py::test_paths_do_not_depend_on_the_current_folder",
    "sampling.rare_below": "data/detection/test_repeats.py::test_the_images_of_an_epoch",
    "scene_without": "data/scenes/test_stream.py::test_the_data_config_leaves_ingredients_out",
    "sampler": "sweep/test_ledger.py::test_a_grid_has_each_point_once",
    "sdpoint.drawn": "papers/sdpoint/test_sandwich.py::test_the_instances_of_a_batch",
    "sdpoint.schedule": "papers/sdpoint/test_sandwich.py::test_the_instances_of_a_batch",
    "seed": "training/test_loop.py::test_the_same_seed_is_the_same_run",
    "single_class": "training/test_detection.py::test_all_classes_as_one",
    "splits.NAME.parts": "data/formats/test_yolo.py::test_several_folders_and_lists",
    "tiles.empty": "data/detection/test_windows.py::test_tiles_without_objects_are_thinned",
    "tiles.overlap": "data/detection/test_windows.py::test_every_tile_with_objects_in_every_epoch",
    "tiles.size_px": "data/detection/test_windows.py::test_windows_and_what_they_show",
    "train_images": "training/test_detection.py::test_images_drawn_for_the_training",
    "trd.exact": "papers/trd/test_schedule.py::test_an_exact_share",
    "trd.guard": "papers/trd/test_schedule.py::test_guards",
    "trd.interpolation": "papers/trd/test_strategy.py::test_areas_are_means",
    "trd.min_object_px": "papers/trd/test_strategy.py::test_images_with_small_objects_stay",
}
"""The keys that no shipped config names, and the test that shows what each does."""

KINDS = {
    "data": {"data": ("",)},
    "recipe/detection": {"train": ("",), "runs": ("set.",), "sweeps": ("set.", "space.")},
    "recipe/classification": {"train": ("",), "runs": ("set.",), "sweeps": ("set.", "space.")},
    "run": {"runs": ("",)},
    "sweep": {"sweeps": ("",)},
    "ablation": {"ablations": ("",)},
}
"""Folders of the configs that may name the keys of a kind, and what stands before them there."""


def keys_in(content: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key."""
    for key, value in content.items() if isinstance(content, dict) else ():
        yield f"{prefix}{key}"
        yield from keys_in(value, f"{prefix}{key}.")
        if prefix in ("splits.", "space."):
            yield from keys_in(value, f"{prefix}NAME.")
    for item in content if isinstance(content, list) else ():
        yield from keys_in(item, prefix)


def test_every_key_is_in_use() -> None:
    named = {
        folder: {key for path in (CONFIGS / folder).glob("*.yaml") for key in keys_in(load_yaml(path))}
        for folder in ("data", "train", "runs", "sweeps", "ablations")
    }
    keys = [(one.kind, one.key.replace("[]", "")) for one in describe_keys() if one.type != "section"]
    unnamed = {
        key
        for kind, key in keys
        if kind in KINDS
        if not any(f"{start}{key}" in named[folder] for folder, starts in KINDS[kind].items() for start in starts)
    }
    assert unnamed == set(EFFECTS)


def test_their_effect_is_tested() -> None:
    for key, test in EFFECTS.items():
        path, name = test.split("::")
        text = (TESTS / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), test
        word = "AlbumentationConfig" if key.startswith("augment.albumentations.") else key.rpartition(".")[2]
        assert re.search(rf"(\b|\\n){word}\b", text), test  # in YAML within a string, behind a line break
