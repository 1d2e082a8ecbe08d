"""Norm statistics of fixed weights, measured on training batches.

The running statistics of a training mix what its batches were: images of several sizes (TRD), or the maps of several
networks (SDPoint). They suit the network that is evaluated only if they are measured anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from detect.models.graph import NO_TRANSFORM, GraphTransform
from detect.models.model import Model, network_input
from detect.models.norms import Statistics, named_norms, set_statistics
from detect.runtime.device import Precision, autocast
from detect.runtime.progress import progress_bar
from detect.structures import Batch
from detect.training.task import Loader


def use_transform(model: Model, transform: GraphTransform) -> None:
    model.graph.use_transform(transform)


@dataclass(frozen=True)
class NormEstimator:
    """Measures norm statistics on the first batches of an epoch, at full size unless ``prepare`` scales them.

    Args:
        loader: the training batches.
        learning: paths of the norms to measure; frozen ones keep theirs.
        batches: their number; 0 is all of an epoch.
        device: of the model.
        precision: number format of the network.
        prepare: changes images (B, 3, H, W) for a transform.
        use: activates a transform in a model.
    """

    loader: Loader
    learning: tuple[str, ...]
    batches: int
    device: torch.device
    precision: Precision
    prepare: Callable[[Tensor, GraphTransform], Tensor] = lambda images, transform: images
    use: Callable[[Model, GraphTransform], None] = use_transform

    def measure(
        self, model: Model, transforms: Sequence[GraphTransform], epoch: int
    ) -> dict[GraphTransform, Statistics]:
        """Measure the statistics of a model with each transform; see ``norm_statistics``."""
        count = min(self.batches or len(self.loader), len(self.loader))
        batches = progress_bar(islice(self.loader.epoch(epoch), count), "statistics of the norms", count)
        return norm_statistics(model, self.learning, transforms, batches, self._forward, self.use)

    def refreshed(self, model: Model, epoch: int, transform: GraphTransform = NO_TRANSFORM) -> Model:
        """Return a copy of a model with statistics that are measured anew."""
        copied = copy.deepcopy(model)
        set_statistics(copied.graph, self.measure(copied, [transform], epoch)[transform])
        return copied

    def _forward(self, model: Model, batch: Batch) -> None:
        images = network_input(batch.images, self.device)
        with autocast(self.precision, self.device):
            model(self.prepare(images, model.graph.transform))


def learning_norms(model: Model) -> tuple[str, ...]:
    """Paths of the norms that are not frozen."""
    return tuple(path for path, norm in named_norms(model.graph) if norm.weight.requires_grad)


@torch.no_grad()
def norm_statistics(
    model: Model,
    norms: Iterable[str],
    transforms: Sequence[GraphTransform],
    batches: Iterable[Batch],
    forward: Callable[[Model, Batch], None],
    use: Callable[[Model, GraphTransform], None] = use_transform,
) -> dict[GraphTransform, Statistics]:
    """Compute norm statistics: means over batches of the mean and variance of each batch.

    All transforms see the same batches, so that maps which a transform leaves alone have exactly the same statistics.

    Args:
        model: keeps its own statistics and transform; left in evaluation mode.
        norms: paths of the norms to measure; the others keep their statistics.
        transforms: to measure.
        batches: of the training, with its augmentation.
        forward: runs the model on a batch.
        use: activates a transform in the model.

    Source: SDPoint (Kuen et al., 2018), section 3.3; that all batches have equal weight is ours.
    """
    before = model.graph.transform
    layers = {path: norm for path, norm in named_norms(model.graph) if path in set(norms)}
    own = {path: (norm.running_mean, norm.running_var, norm.momentum) for path, norm in layers.items()}
    counts = {path: norm.num_batches_tracked for path, norm in layers.items()}
    found: dict[GraphTransform, Statistics] = {
        transform: {
            path: (torch.zeros_like(norm.weight), torch.ones_like(norm.weight)) for path, norm in layers.items()
        }
        for transform in transforms
    }
    model.eval()
    for norm in layers.values():
        norm.train()
        norm.num_batches_tracked = None
    for number, batch in enumerate(batches, start=1):
        for transform in transforms:
            use(model, transform)
            for path, norm in layers.items():
                norm.running_mean, norm.running_var = found[transform][path]
                norm.momentum = 1 / number
            forward(model, batch)
    use(model, before)
    for path, norm in layers.items():
        norm.running_mean, norm.running_var, norm.momentum = own[path]
        norm.num_batches_tracked = counts[path]
    model.eval()
    return found
