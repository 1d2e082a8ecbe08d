"""Profiles as text: a line for each row, for each layer, or for each model."""

from __future__ import annotations

from collections.abc import Sequence

from detect.analysis.layers import LayerProfile
from detect.analysis.profile import ModelProfile


def row_table(profile: ModelProfile) -> str:
    """The graph, a line for each row."""
    head = ("name", "module", "from", "channels", "reduction", "parameters", "MACs (M)", "activations (MB)")
    lines = [
        (
            row.name,
            row.module,
            ", ".join(row.inputs),
            str(row.channels),
            str(row.reduction),
            f"{row.parameters:,}",
            f"{row.macs / 1e6:,.1f}",
            f"{row.activation_bytes / 1e6:.2f}",
        )
        for row in profile.rows
    ]
    return align([head, *lines], left=3)


def layer_table(profile: ModelProfile) -> str:
    """A line for each convolution, linear layer and pool."""
    head = ("", "layer", "kind", "kernel", "groups", "channels", "size", "weights", "MACs (M)", "read + written (k)")
    lines = [
        (
            str(number),
            layer.path,
            layer.kind,
            _by(layer.kernel_hw),
            str(layer.groups),
            f"{layer.in_channels} > {layer.out_channels}",
            f"{_by(layer.in_hw)} > {_by(layer.out_hw)}",
            f"{layer.weights:,}",
            f"{layer.macs / 1e6:,.2f}",
            f"{(layer.input_elements + layer.output_elements) / 1e3:,.1f}",
        )
        for number, layer in enumerate(profile.layers, start=1)
    ]
    return align([head, *lines], left=3)


def summary(profile: ModelProfile) -> str:
    """All measures of a model, with what each counts."""
    size = f"{profile.image_hw[0]} x {profile.image_hw[1]} px"
    lines = [
        f"{profile.name}, {size}, {profile.num_classes} classes: {profile.parameters:,} parameters, "
        f"{profile.macs / 1e9:.3f} G multiply-adds ({profile.gflops:.2f} GFLOPs), "
        f"{profile.activation_bytes / 1e6:.1f} MB activations",
        f"  weights of convolutions and linear layers alone {profile.weights:,}; values in a Darknet weights file "
        f"{profile.stored_values:,}",
        f"  BFLOPs of Darknet, with max-pools {profile.bflops:.3f}; convolutional input/output (CIO) "
        f"{profile.cio / 1e6:.2f} M values",
        f"  size {_mib(profile.size_bytes)} MiB as the BDSC paper counts: 4 bytes for each of these values; of a "
        "binary mask a bit for each entry, 4 bytes for each output",
    ]
    if profile.file_bytes is not None:
        lines.append(
            f"  checkpoint file {_mib(profile.file_bytes)} MiB: the same, with names of tensors, counters and the "
            "definition; a run adds its settings and metrics"
        )
    if profile.bottleneck is not None and profile.macs:
        share = profile.bottleneck.macs / profile.macs
        lines.append(
            f"  bottleneck {profile.bottleneck.macs / 1e9:.3f} G multiply-adds ({share:.1%}): "
            f"{profile.bottleneck.path}, {_describe(profile.bottleneck)}"
        )
    return "\n".join(lines)


def comparison_table(profiles: Sequence[ModelProfile]) -> str:
    """All measures, a line for each model."""
    head = (
        "model",
        "parameters",
        "weights",
        "stored",
        "size (MiB)",
        "file (MiB)",
        "MACs (G)",
        "BFLOPs",
        "activations (MB)",
        "CIO (M)",
        "largest (G MACs)",
    )
    lines = [
        (
            profile.name,
            f"{profile.parameters:,}",
            f"{profile.weights:,}",
            f"{profile.stored_values:,}",
            _mib(profile.size_bytes),
            "" if profile.file_bytes is None else _mib(profile.file_bytes),
            f"{profile.macs / 1e9:.3f}",
            f"{profile.bflops:.3f}",
            f"{profile.activation_bytes / 1e6:.1f}",
            f"{profile.cio / 1e6:.2f}",
            f"{profile.bottleneck.macs / 1e9:.3f}" if profile.bottleneck else "",
        )
        for profile in profiles
    ]
    return align([head, *lines], left=1)


def profiles_text(profiles: Sequence[ModelProfile], by_layer: bool) -> str:
    """Each model's table, by row or by layer, and summary; several models are compared at the end."""
    table = layer_table if by_layer else row_table
    blocks = [f"{table(profile)}\n\n{summary(profile)}" for profile in profiles]
    if len(profiles) > 1:
        blocks.append(comparison_table(profiles))
    return "\n\n".join(blocks)


def align(lines: Sequence[tuple[str, ...]], left: int) -> str:
    """Cells in columns, with a rule below the first line.

    Args:
        lines: the head, then what follows; as many cells in each.
        left: so many columns from the left are text, the others numbers.
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for line in lines:
        pairs = list(zip(line, widths, strict=True))
        cells = [cell.ljust(width) for cell, width in pairs[:left]] + [
            cell.rjust(width) for cell, width in pairs[left:]
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.2f}"


def _describe(layer: LayerProfile) -> str:
    channels = f"{layer.in_channels} to {layer.out_channels} channels"
    if layer.kind == "linear":
        return f"linear, {channels}"
    return f"{_by(layer.kernel_hw)} {layer.kind}, {channels} at {_by(layer.out_hw)}"


def _by(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"
