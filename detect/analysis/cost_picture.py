"""Where a model computes, as a picture: BFLOPs of each layer, models one above the other (CSPNet, Figure 7).

matplotlib is imported on use, and only its figures: ``pyplot`` would hold every figure in global state and choose a
window system.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detect.analysis.profile import ModelProfile
from detect.errors import InputError
from detect.runtime.files import atomic_path

BAR, LARGEST = "#4c78a8", "#d62728"


def draw_costs(path: Path, profiles: Sequence[ModelProfile]) -> None:
    """Draw the BFLOPs of each layer as bars in execution order, the bottleneck marked.

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
        heights = [layer.darknet_flops / 1e9 for layer in profile.layers]
        largest = profile.layers.index(profile.bottleneck) if profile.bottleneck else -1
        colors = [LARGEST if i == largest else BAR for i in range(len(heights))]
        axes.bar(range(1, len(heights) + 1), heights, width=0.85, color=colors)
        size = f"{profile.image_hw[0]} x {profile.image_hw[1]} px"
        title = f"{_drawable(profile.name)}, {size}: {profile.bflops:.3f} BFLOPs in {len(heights)} layers"
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
        axes.set_ylabel("BFLOPs")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
        if profile.bottleneck:
            # The label stands on the side of the bar where there is room.
            right = largest > len(heights) / 2
            axes.annotate(
                _drawable(f"{profile.bottleneck.path}: {heights[largest]:.3f}"),
                (largest + 1, heights[largest]),
                xytext=(-6 if right else 6, -2),
                textcoords="offset points",
                ha="right" if right else "left",
                va="top",
                fontsize=9,
                color=LARGEST,
                parse_math=False,
            )
    panels[-1].set_xlabel("layer, in execution order")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _drawable(text: str) -> str:
    """``text`` in letters that matplotlib's own font has."""
    return text.encode("latin-1", "replace").decode("latin-1")
