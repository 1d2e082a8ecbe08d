"""Outputs of a search: ``trials.csv``, the table, a picture, TensorBoard's HParams, the command that trains the best.

The picture has parallel coordinates: an axis for each parameter and one for the metric, a line for each trial. Its form
is that of SPD-Conv (Sunkara and Luo, 2022), Figure 6. matplotlib is imported on use, without ``pyplot``, which holds
figures in global state and chooses a window system.
"""

from __future__ import annotations

import csv
import io
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from detect.analysis.report import align
from detect.config.sweep import SweepConfig
from detect.drawing.text import chart_text
from detect.errors import InputError
from detect.runtime.files import atomic_path, write_text
from detect.runtime.logs import LOGGER
from detect.sweep.ledger import LOG, Ledger, Trial, best_trial
from detect.sweep.plan import Parameter, Plan, shown, training_arguments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS, BEST, FAILED = "viridis", "#d62728", "#b0b0b0"
STRIP = 0.05
"""Width of the metric's colour bar, in distances between axes."""
FAN = 0.6
"""Share of a choice's height over which its lines are spread, so that they do not hide one another."""


def write_csv(path: Path, trials: Sequence[Trial], space: Sequence[Parameter], metric: str) -> None:
    keys = [parameter.key for parameter in space]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["number", "state", metric, *keys, "seconds", "problem"])
    for trial in trials:
        score = "" if trial.score is None else trial.score
        values = [trial.values.get(key, "") for key in keys]
        table.writerow([trial.number, trial.state, score, *values, f"{trial.seconds:.1f}", trial.problem])
    write_text(path, text.getvalue())


def trials_text(trials: Sequence[Trial], space: Sequence[Parameter], metric: str) -> str:
    """Format the trials as a table, best first; at the end those without a score, with their problems."""
    ranked = sorted(trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0)))
    lines = [("trial", metric, *(parameter.key for parameter in space), "seconds")]
    for trial in ranked:
        score = trial.state if trial.score is None else f"{trial.score:.4f}"
        values = (shown(trial.values.get(parameter.key, "")) for parameter in space)
        lines.append((str(trial.number), score, *values, f"{trial.seconds:.0f}"))
    problems = [f"trial {trial.number} failed: {trial.problem}" for trial in trials if trial.state == "failed"]
    return "\n".join([align(lines, left=0), *problems])


def write_hparams(folder: Path, trials: Sequence[Trial], metric: str) -> None:
    """Write the complete trials for the HParams page of TensorBoard; replaces the folder."""
    if folder.exists():
        shutil.rmtree(folder)
    with SummaryWriter(str(folder)) as writer:
        for trial in trials:
            if trial.score is not None:
                writer.add_hparams(trial.values, {f"val/{metric}": trial.score}, run_name=f"{trial.number:04d}")


def training_command(config: SweepConfig, trial: Trial) -> str:
    """The command that trains with a trial's values again."""
    return shlex.join(["detect", "train", *training_arguments(config, trial.values)])


def conclude(plan: Plan, ledger: Ledger) -> Iterator[str]:
    """Write the outputs.

    Yields:
        The table, and the places of the outputs.

    Raises:
        InputError: no trial was trained to its end.
    """
    trials, metric, folder = ledger.trials(), plan.config.metric, plan.folder
    write_csv(folder / "trials.csv", trials, plan.space, metric)
    yield trials_text(trials, plan.space, metric)
    unfinished = sum(trial.state == "unfinished" for trial in trials)
    if unfinished:
        LOGGER.warning("%d unfinished: another process trains them; when it has ended, --resume goes on", unfinished)
    best = best_trial(trials)
    if best is None and unfinished:
        return
    if best is None:
        raise InputError(f"{folder}: no trial was trained to its end; {ledger.trial_folder(0) / LOG} says why")
    draw_parallel_coordinates(folder / "parallel_coordinates.png", plan.space, trials, metric, plan.config.name)
    write_hparams(folder / "hparams", trials, metric)
    yield f"\nbest: trial {best.number}, {metric} {best.score:.4f}; to train it again:"
    yield training_command(plan.config, best)
    yield f"{folder}: trials.csv, parallel_coordinates.png, hparams (tensorboard --logdir {folder / 'hparams'}), trials"


def draw_parallel_coordinates(
    path: Path, space: Sequence[Parameter], trials: Sequence[Trial], metric: str, title: str
) -> None:
    """Draw the trials of a search, coloured by the metric, the best marked with its values.

    Args:
        path: the PNG file.
        space: the parameters, in the order of their axes.
        trials: at least one complete; failed ones are dotted and end at the last parameter.
        metric: of the score.
        title: name of the search.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    best = best_trial(trials)
    assert best is not None, "there is something to draw"
    complete = sorted((trial for trial in trials if trial.score is not None), key=lambda trial: trial.score or 0.0)
    failed = [trial for trial in trials if trial.state == "failed" and len(trial.values) == len(space)]
    result = Parameter(metric, *_widened(complete[0].score or 0.0, best.score or 0.0))
    parameters = [_drawable(parameter) for parameter in space]
    figure = Figure(figsize=(2.0 + 2.1 * len(space), 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    host = figure.add_subplot()
    host.set(xlim=(-0.1, len(space) + STRIP), ylim=(0, 1))
    host.axis("off")
    heights = _heights(parameters, result, [*failed, *complete])
    _draw_lines(host, heights, result, [*failed, *complete], best)
    for index, parameter in enumerate([*parameters, result]):
        last = index == len(space)
        _draw_axis(host, parameter, index, right=last)
        value = best.score if last else best.values[parameter.key]
        _mark(host, index, heights[best.number][index], shown(value), left=last)
    name = chart_text(title)
    count = f"{len(complete)} trial{'s' * (len(complete) > 1)}" + f", {len(failed)} failed (dotted)" * bool(failed)
    figure.suptitle(f"{name}: {count}; best {metric} {best.score:.4f}, trial {best.number}", parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Add a margin to a range, so that no line lies on the edge; also to an empty one."""
    room = 0.04 * (high - low) or 0.01
    return low - room, high + room


def _drawable(parameter: Parameter) -> Parameter:
    """Turn a range of one value into a choice, because its axis would be empty."""
    if parameter.choices or parameter.low < parameter.high:
        return parameter
    return Parameter(parameter.key, choices=(parameter.low,))


def _heights(parameters: Sequence[Parameter], result: Parameter, trials: Sequence[Trial]) -> dict[int, list[float]]:
    """Heights at which the line of each trial crosses the axes, in [0, 1] from the bottom, by the trial's number.

    Trials come lowest score first, which is the order from bottom to top within a choice. Lines of failed trials end
    before the metric's axis.
    """
    heights: dict[int, list[float]] = {trial.number: [] for trial in trials}
    for parameter in parameters:
        if not parameter.choices:
            for trial in trials:
                heights[trial.number].append(_share(parameter, trial.values[parameter.key]))
        for place, choice in enumerate(parameter.choices):
            through = [trial for trial in trials if trial.values[parameter.key] == choice]
            for rank, trial in enumerate(through):
                offset = FAN * ((rank + 0.5) / len(through) - 0.5)
                heights[trial.number].append((place + 0.5 + offset) / len(parameter.choices))
    for trial in trials:
        if trial.score is not None:
            heights[trial.number].append(_share(result, trial.score))
    return heights


def _share(parameter: Parameter, value: float) -> float:
    low, high = parameter.low, parameter.high
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _draw_lines(
    host: Axes, heights: dict[int, list[float]], result: Parameter, trials: Sequence[Trial], best: Trial
) -> None:
    """Draw the line of each trial in the given order, the best on top, and the colour bar."""
    from matplotlib import colormaps

    for trial in trials:
        line = heights[trial.number]
        if trial.score is None:
            _line(host, line, color=FAILED, linewidth=1, linestyle=":", zorder=1)
        elif trial is not best:
            _line(host, line, color=colormaps[COLORS](_share(result, trial.score)), linewidth=1.4, alpha=0.85, zorder=2)
    _line(host, heights[best.number], color=BEST, linewidth=3, zorder=3)
    place = len(heights[best.number]) - 1.0
    strip = np.linspace(0, 1, 256)[:, None]
    host.imshow(strip, cmap=COLORS, extent=(place, place + STRIP, 0, 1), origin="lower", aspect="auto", zorder=2)


def _line(host: Axes, heights: Sequence[float], **style: Any) -> None:
    """Draw a smooth line through all axes, horizontal at each of them."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    points, codes = [(0.0, heights[0])], [Outline.MOVETO]
    for index, (start, end) in enumerate(pairwise(heights)):
        points += [(index + 0.5, start), (index + 0.5, end), (index + 1.0, end)]
        codes += [Outline.CURVE4] * 3
    host.add_patch(PathPatch(Outline(points, codes), fill=False, clip_on=False, **style))


def _draw_axis(host: Axes, parameter: Parameter, index: int, right: bool) -> None:
    """Draw the axis of a parameter, with ``right`` its numbers on the right of the colour bar."""
    from matplotlib.ticker import NullLocator

    axis = host.twinx()
    side: Literal["left", "right"] = "right" if right else "left"
    axis.spines[:].set_visible(False)
    axis.spines[side].set_visible(True)
    axis.spines[side].set_position(("data", index + (STRIP if right else 0)))
    axis.yaxis.set_ticks_position(side)
    axis.patch.set_visible(False)
    if parameter.choices:
        axis.set_ylim(0, len(parameter.choices))
        axis.set_yticks(np.arange(len(parameter.choices)) + 0.5, [shown(choice) for choice in parameter.choices])
    else:
        axis.set_yscale("log" if parameter.log else "linear")
        ticks = _ticks(parameter, with_ends=not right)
        axis.set_yticks(ticks, [f"{tick:.6g}" for tick in ticks])
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_ylim(parameter.low, parameter.high)
    for text in axis.get_yticklabels():
        text.set_bbox({"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7})
    axis.tick_params(labelsize=8)
    label = parameter.key.replace(".", "\n") + ("\n(log)" if parameter.log else "")
    host.text(index, 1.03, label, ha="center", va="bottom", fontsize=9, fontweight="bold" if right else "normal")


def _ticks(parameter: Parameter, with_ends: bool) -> list[float]:
    """Round numbers of a range, and its ends in place of numbers near them."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = parameter.low, parameter.high
    if parameter.log and high / low > 5:
        locator: LogLocator | MaxNLocator = LogLocator(subs=(1.0,) if high / low > 1e4 else (1.0, 2.0, 5.0))
    else:
        locator = MaxNLocator(6, integer=isinstance(low, int))
    room = 0.03 if with_ends else 0.0
    inner = [float(tick) for tick in locator.tick_values(low, high) if low < tick < high]
    inner = [tick for tick in inner if room < _share(parameter, tick) < 1 - room]
    return [low, *inner, high] if with_ends else inner


def _mark(host: Axes, index: int, height: float, text: str, left: bool) -> None:
    """Write the best trial's value where its line crosses an axis."""
    host.plot([index], [height], marker="o", markersize=6, color=BEST, zorder=4, clip_on=False)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    host.annotate(
        text,
        (index, height),
        xytext=(-9 if left else 9, 7),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=9,
        fontweight="bold",
        color=BEST,
        bbox=box,
        zorder=5,
    )
