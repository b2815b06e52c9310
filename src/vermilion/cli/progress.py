"""A progress bar on stderr: audio done of audio in all, speed, time left, and what is being worked on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from vermilion.cli.console import Terminal
from vermilion.cli.inputs import Item

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from vermilion.audio import AudioInput
    from vermilion.pipeline import Progress

STAGES = {"open": "finding speech in", "vad": "recognising", "lid": "recognising", "asr": "recognising"}
"""what begins when a stage of the pipeline is reported"""


class Tally:
    """How much audio there is and how much is done; recordings not yet opened are estimated by their file size."""

    def __init__(self, items: Sequence[Item]) -> None:
        """Take the recordings in their order."""
        self.sizes = [item.size() for item in items]
        self.totals: dict[int, float] = {}
        self.finished: dict[int, float] = {}
        self.began = time.monotonic()

    def total(self) -> float | None:
        """Seconds of audio in all, None while nothing is known."""
        known = sum(self.totals.values())
        size = sum(self.sizes[i] for i in self.totals)
        waiting = sum(s for i, s in enumerate(self.sizes) if i not in self.totals)
        if waiting == 0:
            return known
        return known + waiting * known / size if known and size else None

    def done(self) -> float:
        """Seconds of audio that are finished."""
        return sum(self.finished.values())

    def speed(self) -> float:
        """Seconds of audio per second of work."""
        return self.done() / max(time.monotonic() - self.began, 1e-3)


class Meter:
    """The progress bar; on anything but a terminal it is silent."""

    def __init__(self, items: Sequence[Item], terminal: Terminal) -> None:
        """Take the recordings in the order in which the pipeline will consume them."""
        self._lock = Lock()  # steps come from two threads
        self.items = items
        self.terminal = terminal
        self.tally = Tally(items)
        self._current = -1
        self._active: dict[str, list[int]] = {}
        self._bar: Bar | None = None

    def sources(self) -> Iterator[AudioInput]:
        """The recordings, noting which one the pipeline has come to."""
        for i, item in enumerate(self.items):
            self._current = i
            yield item.source

    def __enter__(self) -> Meter:
        """Start counting, and draw the bar if there is a terminal."""
        self.tally.began = time.monotonic()
        if not self.terminal.quiet and self.terminal.err.is_terminal:
            self._bar = _bar(self.terminal)
            self._task = self._bar.add_task("starting", total=None, pace="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while something else is written."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def finish(self, index: int) -> None:
        """Count a recording as done, however it ended."""
        with self._lock:
            self.tally.finished[index] = self.tally.totals.setdefault(index, 0.0)
            self._draw("")

    def __call__(self, progress: Progress) -> None:
        """Take a step of the pipeline."""
        with self._lock:
            self._take(progress)

    def _take(self, progress: Progress) -> None:
        if progress.stage == "open":
            self.tally.totals[self._current] = progress.total
            self._active.setdefault(progress.source, []).append(self._current)
        elif progress.stage in ("done", "failed"):
            self._close(progress)
        else:
            for index in self._active.get(progress.source, [])[:1]:
                self.tally.finished[index] = min(progress.done, self.tally.totals[index])
        stage = STAGES.get(progress.stage)
        if stage:
            self._draw(f"{stage} {Path(progress.source).name}")

    def _close(self, progress: Progress) -> None:
        indices = self._active.get(progress.source)
        if indices:
            index = indices.pop(0)
            self.tally.finished[index] = self.tally.totals[index]

    def _draw(self, what: str) -> None:
        if self._bar is None:
            return
        total, done, speed = self.tally.total(), self.tally.done(), self.tally.speed()
        pace = f"{clock(done)} of {clock(total) if total else '?'}"
        if done:
            pace += f" · {speed:.1f}× real time"
        if done and total:
            pace += f" · {clock((total - done) / speed)} left"
        if what:
            self._bar.update(self._task, description=what if len(what) < 46 else what[:20] + "…" + what[-24:])
        self._bar.update(self._task, total=total, completed=done, pace=pace)


def _bar(terminal: Terminal) -> Bar:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    # results go to stdout themselves: rich must not send them through its console on stderr
    return Bar(*columns, console=terminal.err, transient=True, redirect_stdout=False, redirect_stderr=False)


def clock(seconds: float) -> str:
    """`65.2` → `1:05`, `3661` → `1:01:01`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
