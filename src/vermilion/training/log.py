"""What a training says of itself: metrics as JSON lines, TensorBoard on request, the loss curve as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.errors import TrainingError, missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = "metrics.jsonl"
CURVE = "loss.png"


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is."""

    step: int
    steps: int
    loss: float
    """mean since the last line of the log; NaN before the first step"""
    rate: float
    """steps per second"""
    what: str
    """"training", "validating", "saving" or a remark such as a result of a validation"""


Report = Callable[[TrainingProgress], None]
"""how the library tells of its progress"""


class MetricsLog:
    """Appends rows to metrics.jsonl, and to TensorBoard's files if asked for."""

    def __init__(self, output_dir: Path, first_step: int = 0, tensorboard: bool = False) -> None:
        """Open the files.

        Args:
            output_dir: of the training.
            first_step: rows of later steps are taken out: the training goes on from a checkpoint before them.
            tensorboard: write event files to `tensorboard/` too.

        Raises:
            MissingDependencyError: TensorBoard is wanted and not installed.
            TrainingError: the file cannot be written.
        """
        self.path = output_dir / METRICS
        kept = [row for row in read_metrics(self.path) if row["step"] <= first_step] if self.path.exists() else []
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf8")
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error}") from error
        for row in kept:
            self._line(row)
        self._board = _summary_writer(output_dir / "tensorboard", first_step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write a row: {"step": …, **values}."""
        self._line({"step": step, **{k: _rounded(v) for k, v in values.items()}})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _line(self, row: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError):  # a full disk; what could not be written was said
            self._file.close()
        if self._board is not None:
            self._board.close()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _summary_writer(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing("TensorBoard is not installed", "training") from error
    return SummaryWriter(str(folder), purge_step=first_step + 1)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of metrics.jsonl; a last line that a kill cut short is left out."""
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def draw_curve(output_dir: Path, losses: Sequence[str] = ("loss", "valid_loss")) -> Path:
    """Draw loss.png out of metrics.jsonl: losses on the left, learning rate on the right.

    Args:
        output_dir: of a training.
        losses: columns that are drawn as curves; those beginning with them and "_" too.

    Returns:
        The picture's path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(read_metrics(output_dir / METRICS))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = {name: None for row in rows for name in row if any(name == x or name.startswith(f"{x}_") for x in losses)}
    for name in names:
        _curve(axes, rows, name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    if names:
        axes.legend(loc="upper right")
    rate = axes.twinx()
    _curve(rate, rows, "learning_rate", color="0.75", linewidth=0.8)
    rate.set_ylabel("learning rate", color="0.5")
    place = output_dir / CURVE
    figure.savefig(place, dpi=120)
    return place


def _curve(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, **style: Any) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    if points:
        marker = "o" if name.startswith("valid") else None
        axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3, **style)
