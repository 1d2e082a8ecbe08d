"""Precision-recall curves and the confusion matrix as PNG files.

matplotlib is imported on use, and only its figures: ``pyplot`` would hold every figure in global state and choose a
window system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detect.drawing.text import font_for, shorten
from detect.evaluation.coco import ABSENT, CocoMetrics
from detect.evaluation.confusion import IOU, SCORE
from detect.runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

MAX_NAME = 24
"""Maximum length of a class name in a picture."""

LETTER_INCHES = 0.1
"""Width of a letter of a name, to leave room for the longest one."""

MAX_LEGEND = 20
"""Maximum number of classes in a legend, and of classes of a matrix with written counts."""

MAX_TICKS = 100
"""Maximum number of class names at an axis of the confusion matrix; more cannot be read."""


def draw_precision_recall(path: Path, metrics: CocoMetrics) -> None:
    """Draw precision over recall at IoU 0.5 as a PNG file: a thin line per class with ground truth, and their mean."""
    curves = metrics.precision[0]  # (R, K) at IoU 0.50
    recall = np.linspace(0, 1, len(curves))
    present = [label for label in range(curves.shape[1]) if curves[0, label] > ABSENT]
    names = list(metrics.per_class)
    texts = {
        label: f"{drawable_name(names[label])}  {metrics.per_class[names[label]]['AP50']:.3f}" for label in present
    }
    figure, axes = _figure(7 + LETTER_INCHES * max(map(len, texts.values()), default=0), 6)
    for label, text in texts.items():
        axes.plot(recall, curves[:, label], linewidth=1, label=text if len(present) <= MAX_LEGEND else "_")
    if present:
        text = f"mean of {len(present)} classes  {metrics['AP50']:.3f}"
        axes.plot(recall, curves[:, present].mean(axis=1), linewidth=3, color="black", label=text)
        legend = axes.legend(title="AP50", loc="center left", bbox_to_anchor=(1.0, 0.5))
        set_fonts(legend.get_texts())
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall at IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def draw_curves(path: Path, curves: Mapping[int, Mapping[str, float]], xlabel: str) -> None:
    """Draw values in [0, 1] over a number, a line for each name, as a PNG file; ``ABSENT`` ones are left out."""
    figure, axes = _figure(8, 5)
    for name in next(iter(curves.values())):
        points = [(x, values[name]) for x, values in curves.items() if values[name] != ABSENT]
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    axes.set(xlabel=xlabel, xticks=list(curves), ylim=(0, 1.02))
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def draw_confusion_matrix(path: Path, matrix: np.ndarray, names: tuple[str, ...]) -> None:
    """Draw the (K + 1, K + 1) counts of ``confusion_matrix`` as a PNG file, coloured by share of the row."""
    title = f"Confusion at score {SCORE}, IoU {IOU}\n(counts; colour: share of the row)"
    draw_matrix(path, matrix, [*names, "background"], title)


def draw_matrix(path: Path, matrix: np.ndarray, labels: list[str], title: str) -> None:
    """Draw (L, L) counts of true (rows) and predicted (columns) class, coloured by share of the row.

    Args:
        path: the PNG file.
        matrix: (L, L) counts.
        labels: names of the L rows and columns, as they are in the data.
        title: heading.
    """
    plain = [drawable_name(label) for label in labels] if len(labels) <= MAX_TICKS else []
    side = float(np.clip(2 + 0.35 * len(labels), 4, 29)) + LETTER_INCHES * max(map(len, plain), default=0)
    figure, axes = _figure(side + 1, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if plain:
        axes.set_xticks(range(len(labels)), plain, rotation=90)
        axes.set_yticks(range(len(labels)), plain)
        set_fonts([*axes.get_xticklabels(), *axes.get_yticklabels()])
    if len(labels) <= MAX_LEGEND + 1:  # background is one more
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=color)
    save_figure(figure, path)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save_figure(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def drawable_name(name: str) -> str:
    """Shorten a class name to at most ``MAX_NAME`` characters as it is drawn: without a font, one may be an escape."""
    return plain_text(shorten(font_for(shorten(name, MAX_NAME))[1], MAX_NAME))


def plain_text(text: str) -> str:
    """Escape ``text`` for matplotlib, where ``$`` begins a formula and a leading ``_`` hides a line."""
    drawable = font_for(text)[1].replace("$", r"\$")
    return drawable if text == "_" or not drawable.startswith("_") else f"\N{ZERO WIDTH SPACE}{drawable}"


def set_fonts(texts: Sequence[Text]) -> None:
    """Set a font for each text that has its characters."""
    for text in texts:
        text.set_fontproperties(font_for(text.get_text())[0])
