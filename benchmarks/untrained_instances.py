"""AP of the instances (SDPoint) of a detector that was never trained for them, each with norms of its own.

python benchmarks/untrained_instances.py [--way restore] [--data-root DeepPCB] [--instances 2@0.5 3@0.5]

The norms are measured on 64 training images without augmentation, in batches of 16; fp32, one thread. It shows what an
instance destroys before any training: 0.426 AP at 60 % of the cost, or 0.083 at 40 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detect.config.data import load_data_config
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.evaluation.loop import Conditions
from detect.models.checkpoint import load_checkpoint
from detect.models.model import Model, network_input
from detect.papers.sdpoint.comparison import DetectionSplit
from detect.papers.sdpoint.instances import Instances, install
from detect.papers.sdpoint.transform import (
    PLAIN,
    InstanceCosts,
    InstanceTransform,
    find_points,
    list_instances,
    set_way,
)
from detect.runtime.cli import run_tool
from detect.structures import Batch, Targets
from detect.training.batch_norms import prepare_norms
from detect.training.norm_statistics import learning_norms, norm_statistics

IMAGES, BATCH = 64, 16
CPU = torch.device("cpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", type=Path, default=Path("yolov5n-spd-deeppcb"))
    add("--data", default="deeppcb")
    add("--data-root")
    add("--way", choices=("restore", "shrink"), default="restore")
    add("--instances", nargs="*", help="names, such as 2@0.5 (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint, data = load_checkpoint(args.weights), load_data_config(args.data, args.data_root)
    model, size = checkpoint.detector, checkpoint.image_size
    prepare_norms(model)
    set_way(model, args.way)
    found = list_instances(range(1, len(find_points(model.graph)) + 1), (0.5, 0.75))
    members = [one for one in found if not args.instances or one.name in args.instances]
    transforms = [InstanceTransform(member, args.way) for member in members]
    batches = training_batches(open_split(data, "train"), size)
    statistics = norm_statistics(model, learning_norms(model), transforms, batches, forward)
    by_instance = {member: statistics[transform] for member, transform in zip(members, transforms, strict=True)}
    install(model, Instances((PLAIN,), args.way, by_instance))
    costs = InstanceCosts(model.graph, model.num_classes)
    full = costs.macs(PLAIN, (size, size))
    split, conditions = DetectionSplit(open_split(data, "val")), Conditions(size, BATCH, 0, CPU)
    for member, measured in zip(members, split.measure(checkpoint, members, conditions, args.way), strict=True):
        shown = "  ".join(f"{name} {measured.metrics[name]:.3f}" for name in split.shown)
        print(f"{member.name:8} {costs.macs(member, (size, size)) / full:.3f}  {shown}")


def training_batches(table: AnnotationTable, size: int) -> Iterator[Batch]:
    """Batches of images drawn from a split, resized to squares of ``size`` pixels, without targets."""
    rows = np.random.default_rng(0).permutation(len(table))[:IMAGES]
    none = Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    for start in range(0, len(rows), BATCH):
        chosen = rows[start : start + BATCH]
        images = [
            Image.fromarray(table.read(int(row))).resize((size, size), Image.Resampling.BILINEAR) for row in chosen
        ]
        yield Batch(torch.from_numpy(np.stack([np.asarray(image) for image in images])), none, torch.from_numpy(chosen))


def forward(model: Model, batch: Batch) -> None:
    model(network_input(batch.images, CPU))


if __name__ == "__main__":
    run_tool(main)
