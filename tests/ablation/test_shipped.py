"""The comparisons in ``configs/ablations``: every training is one that can be made."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from detect.ablation.plan import plan_trainings
from detect.config.ablation import load_ablation_config
from detect.config.yaml_files import CONFIGS

COUNTS = {
    "trd-deeppcb": 12,
    "trd-figure-5-share": 10,  # P from 0 to 0.9
    "trd-figure-5-size": 8,  # from 8 to 64 px
    "trd-grid-subset": 4,
    "trd-subset": 15,
    "trd-test-size": 6,
}


def test_all_are_counted() -> None:
    assert set(COUNTS) == {path.stem for path in (CONFIGS / "ablations").glob("trd-*.yaml")}


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_trainings(tmp_path: Path, path: Path) -> None:
    config = load_ablation_config(path.stem)
    if config.base.get("data") != "shapes":  # which are generated, if need be
        config = replace(config, base={**config.base, "data_root": str(tmp_path)})
    assert config.name == path.stem
    for case, seed in itertools.product(("plain", "TRD"), config.seeds):  # the results of `classifiers-subset`
        weights = tmp_path / "classifiers-subset" / f"{case}-seed{seed}" / "best.pt"
        weights.parent.mkdir(parents=True)
        weights.touch()
    trainings = plan_trainings(config, tmp_path / "out")
    assert len(trainings) == COUNTS.get(path.stem, len(trainings)) >= 2 * len(config.seeds)
