"""Pictures of an evaluation: ROC curves, confusions, reliability of confidences; readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from vermilion.evaluation.calibration import Reliability
from vermilion.evaluation.languages import LanguageScore
from vermilion.evaluation.results import Evaluation
from vermilion.evaluation.voice_activity import RocCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#808890"
"""of axes and text: has contrast on white and on black"""
COLOURS = ("#2f7ed8", "#e07b39", "#3a9d5d", "#b05cc4", "#c9a227", "#d04f5f", "#4aa8a8", "#8d6e63")
MOST_LABELS = 30
"""of a confusion matrix; the most frequent ones are shown"""
DPI = 130


def pictures(evaluations: Sequence[Evaluation]) -> dict[str, bytes]:
    """Draw what there is to draw.

    Args:
        evaluations: systems on the same task.

    Returns:
        PNG files by name without suffix: "roc", "confusion", "reliability"; a number follows for further systems.
    """
    made: dict[str, bytes] = {}
    curves = {_curve_name(e, name, evaluations): curve for e in evaluations for name, curve in e.curves.items()}
    if curves:
        made["roc"] = png(roc(curves))
    for i, evaluation in enumerate(evaluations):
        suffix = f"-{i + 1}" if len(evaluations) > 1 else ""
        if evaluation.confusion is not None and evaluation.confusion.total:
            made[f"confusion{suffix}"] = png(confusion(evaluation.confusion, evaluation.system))
        if evaluation.reliability:
            made[f"reliability{suffix}"] = png(reliability(evaluation.reliability, evaluation.system))
    return made


def roc(curves: Mapping[str, RocCurve]) -> Figure:
    """Draw ROC curves, their area in the legend."""
    figure, axes = _figure(5.2, 4.6)
    for k, (name, curve) in enumerate(curves.items()):
        auc = float(np.trapezoid(curve.hits, curve.false_alarms))
        alarms, hits = _thinned(curve)
        axes.plot(alarms, hits, color=COLOURS[k % len(COLOURS)], lw=1.6, label=f"{_plain(name)}  AUC {auc:.4f}")
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    axes.set(xlabel="false alarm rate", ylabel="hit rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    _legend(axes, "lower right")
    return figure


def confusion(score: LanguageScore, title: str = "") -> Figure:
    """Draw shares of each true label's recordings, the most frequent labels."""
    weights = {label: sum(n for pair, n in score.confusions.items() if label in pair) for label in score.labels}
    labels = sorted(sorted(weights, key=lambda label: -weights[label])[:MOST_LABELS])
    counts = np.array(score.matrix(labels), dtype=float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.2 + 0.34 * len(labels)
    figure, axes = _figure(size, size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_plain(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(labels)), names, fontsize=8)
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[i, j] > 0.5 else "#102030"
        axes.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set(xlabel="identified", ylabel="true")
    axes.set_title(_plain(title), color=INK, fontsize=9)
    return figure


def reliability(curves: Mapping[str, Reliability], title: str = "") -> Figure:
    """Draw confidence against what was right, and how many answers each bin holds."""
    figure, (axes, below) = _figure(5.2, 5.0, rows=(3, 1))
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    for k, (name, curve) in enumerate(curves.items()):
        colour, bins = COLOURS[k % len(COLOURS)], len(curve.counts)
        points = [(c, a) for c, a, n in zip(curve.confidence, curve.accuracy, curve.counts, strict=True) if n]
        label = f"{name}: ECE {100 * curve.ece:.2f} %"
        axes.plot(*zip(*points, strict=True), marker="o", ms=4, color=colour, lw=1.4, label=label)
        left = (np.arange(bins) + k / len(curves)) / bins
        below.bar(left, curve.counts, width=0.9 / bins / len(curves), align="edge", color=colour)
    axes.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(_plain(title), color=INK, fontsize=9)
    below.set(xlabel="confidence", ylabel="answers", xlim=(0, 1))
    _legend(axes, "upper left")
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a file with a transparent background."""
    out = BytesIO()
    figure.savefig(out, format="png", dpi=DPI, transparent=True)
    return out.getvalue()


def _figure(width: float, height: float, rows: tuple[int, ...] = (1,)) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0]
    for one in axes:
        one.tick_params(colors=INK, labelsize=8)
        one.xaxis.label.set_color(INK)
        one.yaxis.label.set_color(INK)
        for spine in one.spines.values():
            spine.set_color(INK)
    return figure, axes[0] if len(rows) == 1 else axes


def _legend(axes: Any, where: str) -> None:
    legend = axes.legend(loc=where, fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_color(INK)


def _thinned(curve: RocCurve, most: int = 2000) -> tuple[Any, Any]:
    """Few enough points to draw."""
    step = max(1, len(curve.hits) // most)
    keep = np.r_[0 : len(curve.hits) : step, len(curve.hits) - 1]
    return curve.false_alarms[keep], curve.hits[keep]


def _curve_name(evaluation: Evaluation, name: str, evaluations: Sequence[Evaluation]) -> str:
    return f"{evaluation.system}: {name}" if len(evaluations) > 1 else name


def _plain(text: str) -> str:
    """Names are no formulas to matplotlib."""
    return text.replace("$", r"\$")
