"""How large a model is: as the BDSC paper counts, and as a checkpoint file, of which one is made in memory."""

from __future__ import annotations

import torch
from torch import nn

from detect.models.build import empty_model
from detect.models.checkpoint import checkpoint_archive
from detect.models.definition import ModelDefinition
from detect.models.heads import AnchorDetect, Classify
from detect.models.packing import packed_layers
from detect.models.registry import find_block


def count_bytes(module: nn.Module) -> int:
    """4 bytes for each weight, each bias and each of the four values of a norm's channel; but of binary weights a bit
    for each entry and 4 bytes for the magnitude of each output.

    Source: BDSC (AAAI 2018), whose model sizes follow, in units of 2 ** 20 bytes.
    """
    packed = packed_layers(module).values()
    floats = sum(p.numel() for p in module.parameters()) - sum(layer.weight.numel() for layer in packed)
    floats += sum(2 * layer.num_features for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    return 4 * floats + sum(layer.packed_bytes for layer in packed)


def measure_file(definition: ModelDefinition, num_classes: int, image_size: int) -> int | None:
    """Size in bytes of the file that a training of the model leaves as its best checkpoint.

    What it says of its origin and its metrics is left out, some thousand bytes; the names of the classes are numbers.

    Args:
        definition: the model.
        num_classes: K.
        image_size: side of the square input in pixels.

    Returns:
        The size; None where the last row is no head, so that there is nothing to train.
    """
    if not issubclass(find_block(definition.rows[-1].module), (AnchorDetect, Classify)):
        return None
    with torch.device("meta"):  # nothing is initialised: the values do not matter
        model = empty_model(definition, num_classes).to_empty(device="cpu")
    numbers = range(num_classes)
    archive = checkpoint_archive(
        model,
        names=tuple(map(str, numbers)),
        category_ids=tuple(numbers),
        image_size=image_size,
        metrics={},
        provenance={},
    )
    return archive.getbuffer().nbytes
