"""Profiles as text, with a line for each row, layer or model, and as a picture.

matplotlib is imported on use, and only its figures: ``pyplot`` would hold every figure in global state and choose a
window system.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detect.analysis.layers import LayerProfile
from detect.analysis.profile import ModelProfile
from detect.drawing.text import chart_text
from detect.errors import InputError
from detect.runtime.files import atomic_path

BAR, LARGEST = "#4c78a8", "#d62728"
"""Colours of the bars, and of the bottleneck's."""


def row_table(profile: ModelProfile) -> str:
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
    if profile.ones is not None:
        lines.append(
            f"  operations as the BDSC paper counts {profile.bdsc_macs / 1e9:.3f} G multiply-adds: of a binary mask "
            f"half of one for each 1, {profile.ones:.1%} of its entries"
        )
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
    has_masks = any(profile.ones is not None for profile in profiles)
    head = (
        "model",
        "parameters",
        "weights",
        "stored",
        "size (MiB)",
        "file (MiB)",
        "MACs (G)",
        *(("of BDSC (G)",) if has_masks else ()),
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
            *((f"{profile.bdsc_macs / 1e9:.3f}",) if has_masks else ()),
            f"{profile.bflops:.3f}",
            f"{profile.activation_bytes / 1e6:.1f}",
            f"{profile.cio / 1e6:.2f}",
            f"{profile.bottleneck.macs / 1e9:.3f}" if profile.bottleneck else "",
        )
        for profile in profiles
    ]
    return align([head, *lines], left=1)


def profiles_text(profiles: Sequence[ModelProfile], by_layer: bool) -> str:
    """Return each model's table and summary; several models are compared at the end."""
    table = layer_table if by_layer else row_table
    blocks = [f"{table(profile)}\n\n{summary(profile)}" for profile in profiles]
    if len(profiles) > 1:
        blocks.append(comparison_table(profiles))
    return "\n\n".join(blocks)


def align(lines: Sequence[tuple[str, ...]], left: int) -> str:
    """Align cells in columns, with a rule below the first line.

    Args:
        lines: the head, then the body; as many cells in each.
        left: number of columns from the left that are text; the others are numbers.
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


def draw_costs(path: Path, profiles: Sequence[ModelProfile]) -> None:
    """Draw the BFLOPs of each layer as bars in execution order, the bottleneck marked (CSPNet, Figure 7).

    Args:
        path: the PNG file.
        profiles: at least one; each gets a panel, all with the same axes.

    Raises:
        InputError: the file's name does not end in ``.png``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: the picture is a PNG file; its name must end in .png")
    figure = Figure(figsize=(11, 1.0 + 2.2 * len(profiles)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(profiles), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, profile in zip(panels, profiles, strict=True):
        _draw_panel(axes, profile)
    panels[-1].set_xlabel("layer, in execution order")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_panel(axes: Any, profile: ModelProfile) -> None:
    heights = [layer.darknet_flops / 1e9 for layer in profile.layers]
    largest = profile.layers.index(profile.bottleneck) if profile.bottleneck else -1
    colors = [LARGEST if i == largest else BAR for i in range(len(heights))]
    axes.bar(range(1, len(heights) + 1), heights, width=0.85, color=colors)
    size = f"{profile.image_hw[0]} x {profile.image_hw[1]} px"
    title = f"{chart_text(profile.name)}, {size}: {profile.bflops:.3f} BFLOPs in {len(heights)} layers"
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.set_ylabel("BFLOPs")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    if profile.bottleneck:
        # The label stands on the side of the bar where there is room.
        right = largest > len(heights) / 2
        axes.annotate(
            chart_text(f"{profile.bottleneck.path}: {heights[largest]:.3f}"),
            (largest + 1, heights[largest]),
            xytext=(-6 if right else 6, -2),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=9,
            color=LARGEST,
            parse_math=False,
        )
