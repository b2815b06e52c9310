"""What a machine can do with recordings, stage by stage: measured, or assumed and marked so."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Stage:
    """The work of a stage in one worker while all workers of the machine are at work."""

    name: str
    second: float
    """seconds of work per second of audio"""
    item: float = 0.0
    """seconds of work per recording"""
    on: Literal["cpu", "gpu"] = "cpu"
    """what it keeps busy"""


@dataclass(frozen=True)
class Figures:
    """A machine with so many workers."""

    name: str
    """what was measured: machine, models, precision"""
    measured: bool
    """False: some of it is an assumption; `note` says which"""
    workers: int
    """at work while it was measured"""
    threads: int
    """of each worker"""
    cores: int
    """of the machine, or of the part of it that was measured"""
    stages: tuple[Stage, ...]
    alone: float = 1.0
    """time that a worker needs while its neighbours are idle, relative to all at work"""
    start: float = 0.0
    """seconds from the command until the first worker works at full speed"""
    load: float = 0.0
    """seconds until a worker that is started again works at full speed"""
    row: float = 0.0
    """seconds in which the driver writes a row"""
    row_bytes: tuple[float, float] = (0.0, 0.0)
    """of JSON lines, per recording and per second of audio"""
    parquet_bytes: tuple[float, float] = (0.0, 0.0)
    """of Parquet, likewise"""
    audio_bytes: float = 0.0
    """of the recordings that were measured, per second of audio"""
    mean_seconds: float = 0.0
    """of a recording that was measured"""
    note: str = ""

    @property
    def second(self) -> float:
        """Seconds of work per second of audio, all stages."""
        return sum(stage.second for stage in self.stages)

    @property
    def item(self) -> float:
        """Seconds of work per recording, all stages."""
        return sum(stage.item for stage in self.stages)

    @property
    def gpu_share(self) -> float:
        """Share of the work that keeps a GPU busy."""
        on_gpu = sum(stage.second for stage in self.stages if stage.on == "gpu")
        return on_gpu / self.second if self.second else 0.0

    def slowness(self, busy: int, workers: int, gpus: int = 0) -> float:
        """How much longer than these figures a worker takes while so many of the machine's are at work.

        Args:
            busy: workers at work.
            workers: of the machine; a machine with n times the workers is taken to have n times the cores.
            gpus: of the machine; its workers share them.
        """
        beside = (busy - 1) / (workers - 1) if workers > 1 else 1.0
        slow = self.alone + (1.0 - self.alone) * beside if self.workers > 1 else 1.0
        return max(slow, busy * self.gpu_share / gpus) if gpus else slow

    def per_core_hour(self, mean_seconds: float = 0.0) -> float:
        """Hours of audio that a core gets through in an hour, models loaded."""
        return self.workers / (self.second + self.item / (mean_seconds or self.mean_seconds or 1.0)) / self.cores

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Figures:
        """The reverse."""
        pairs = {name: tuple(found[name]) for name in ("row_bytes", "parquet_bytes") if name in found}
        stages = tuple(Stage(**stage) for stage in found["stages"])
        return cls(**{**found, **pairs, "stages": stages})


def read(path: Path) -> list[Figures]:
    """The figures of a file: one for every number of workers that was measured."""
    return [Figures.from_dict(found) for found in json.loads(path.read_text(encoding="utf-8"))]


def write(path: Path, figures: list[Figures]) -> None:
    """Write a file of figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([one.to_dict() for one in figures], ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def fitting(figures: list[Figures], workers: int) -> Figures:
    """Those for a machine with so many workers: measured with as many, or with the largest number that divides it.

    Raises:
        ValueError: there are none.
    """
    fit = [one for one in figures if workers % one.workers == 0]
    if not fit:
        known = ", ".join(str(one.workers) for one in figures)
        raise ValueError(f"no figures for {workers} workers; measured with {known} and multiples of them")
    return max(fit, key=lambda one: one.workers)
