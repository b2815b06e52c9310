"""The lines of a manifest that a training can use: counted once, then read block by block.

A manifest that fits into the buffer stays in memory. Of a larger one nothing is kept but the places of every
thousandth line: each epoch takes stretches of lines in another order, as many at a time as the buffer holds, so that
memory does not grow with the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vermilion.errors import AudioError, ManifestError, TrainingError
from vermilion.manifests import Utterance, from_row, iterate_manifest
from vermilion.training.skipping import FEW, Skips

CHUNK = 1000
"""lines that stay together"""
_ORDER = 5
"""tells the generator of the order of chunks apart from others made of the same seed"""
INDEX = "index.jsonl"
UNREADABLE = "unreadable"
BAD_LINE = "line is no entry"

Judge = Callable[[Utterance], str]
"""why an utterance is left out; '' = it is used"""


@dataclass(frozen=True)
class Usable:
    """What the lines of a training need. A reason is a kind, or a kind, a colon and what is wrong with the line."""

    min_seconds: float
    max_seconds: float
    judge: Judge = field(default=lambda _: "")
    """what else is needed"""

    def __call__(self, utterance: Utterance) -> tuple[float, str]:
        """Seconds, and why the line is left out ('' = it is used)."""
        why = self.judge(utterance)
        if why:
            return 0.0, why
        try:
            seconds = seconds_of(utterance)
        except (AudioError, ManifestError) as error:
            return 0.0, f"{UNREADABLE}: {error}"
        if seconds < self.min_seconds:
            return seconds, f"shorter than {self.min_seconds:g} s (--min-seconds)"
        return seconds, f"longer than {self.max_seconds:g} s (--max-seconds)" if seconds > self.max_seconds else ""


def seconds_of(utterance: Utterance) -> float:
    """Duration of an utterance; where the manifest does not say it, the file is asked.

    Raises:
        AudioError: it cannot be read.
    """
    if utterance.duration is not None:
        return utterance.duration
    import soundfile

    from vermilion.audio import SAMPLE_RATE

    try:
        return float(soundfile.info(utterance.audio).duration) - utterance.offset
    except (RuntimeError, OSError):
        return len(utterance.load()) / SAMPLE_RATE


@dataclass(frozen=True)
class Block:
    """Lines that are in memory together."""

    utterances: list[Utterance]
    seconds: list[float]
    numbers: list[int]
    """of the lines, the same in every epoch"""


class Lines:
    """The usable lines of a manifest."""

    def __init__(
        self,
        path: str | Path,
        usable: Usable,
        *,
        buffer: int,
        skips: Skips | None = None,
        note: Callable[[Utterance], None] = lambda _: None,
    ) -> None:
        """Count the lines; the manifest must stay as it is while it is used.

        Args:
            path: a manifest, or a folder of shards with their `index.jsonl`.
            usable: tells which are used.
            buffer: lines that are held in memory at a time.
            skips: is told of lines that are no entries and of recordings that cannot be read.
            note: is shown each line that is used, once.

        Raises:
            ManifestError: it cannot be read.
            TrainingError: no line, or too small a share, is usable.
        """
        self.path, self.usable, self.buffer = _manifest(path), usable, max(buffer, CHUNK)
        self.count, self.seconds, self.longest = 0, 0.0, 0.0
        self.left_out: Counter[str] = Counter()
        self.bad = 0
        """of these the lines that something is wrong with"""
        self._digest = hashlib.blake2b(digest_size=16)
        self._kept: Block | None = Block([], [], [])
        self._places: list[int] = []
        """of every thousandth line"""
        skips = skips or Skips()
        for utterance, number in self._scan(skips):
            self._take(utterance, number, skips, note)
        self._check(skips)

    # -- the first pass ------------------------------------------------------------------------------------------

    def _scan(self, skips: Skips) -> Iterator[tuple[Utterance, int]]:
        """Every entry with the number of its line, counted from 0."""
        if not _is_lines(self.path):
            yield from ((u, i) for i, u in enumerate(iterate_manifest(self.path, lambda n, e: self._bad(n, e, skips))))
            return
        with self.path.open("rb") as file:
            place = 0
            for number, line in enumerate(file):
                if number % CHUNK == 0:
                    self._places.append(place)
                place += len(line)
                try:
                    utterance = self._entry(line, number)
                except ManifestError as error:
                    self._bad(number + 1, error, skips)
                    continue
                if utterance is not None:
                    yield utterance, number

    def _bad(self, number: int, error: ManifestError, skips: Skips) -> None:
        self.left_out[BAD_LINE] += 1
        self.bad += 1
        skips.note(f"line {number}", str(error))

    def _take(self, utterance: Utterance, number: int, skips: Skips, note: Callable[[Utterance], None]) -> None:
        seconds, why = self.usable(utterance)
        if why:
            kind = why.partition(":")[0]
            self.left_out[kind] += 1
            if kind != why:
                self.bad += 1
                skips.note(utterance.id, why, utterance.audio)
            return
        note(utterance)
        self.count += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        facts = (utterance.id, round(1000 * seconds), utterance.text, utterance.language)
        self._digest.update(json.dumps(facts).encode())
        if self._kept is None:
            return
        if len(self._kept.utterances) == self.buffer and self._places:
            self._kept = None
            return
        self._kept.utterances.append(utterance)
        self._kept.seconds.append(seconds)
        self._kept.numbers.append(number)

    def _check(self, skips: Skips) -> None:
        lines = self.count + sum(self.left_out.values())
        if not lines:
            raise ManifestError(f"{self.path} lists no recording")
        if self.bad > max(FEW, skips.max_share * lines):
            skips.failed, skips.tried = self.bad, lines
            skips.refuse()
        if not self.count:
            raise TrainingError(f"none of the {lines} lines of {self.path} can be used ({self.reasons()})")

    # -- what it holds -------------------------------------------------------------------------------------------

    @property
    def in_memory(self) -> bool:
        """Whether all lines are."""
        return self._kept is not None

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What a checkpoint keeps, to notice that data have changed."""
        hours = round(self.seconds / 3600, 4)
        return {"utterances": self.count, "hours": hours, "digest": self._digest.hexdigest()}

    def reasons(self) -> str:
        """Why lines are left out, for people."""
        return ", ".join(f"{count} {why}" for why, count in self.left_out.most_common())

    @property
    def blocks(self) -> int:
        """How many blocks an epoch has."""
        return 1 if self.in_memory else -(-len(self._places) // (self.buffer // CHUNK))

    def block(self, number: int, epoch: int | None = 0, seed: int = 0) -> Block:
        """One block of an epoch.

        Args:
            number: below `blocks`.
            epoch: decides the order of stretches with the seed; None = as they stand in the manifest.
            seed: of the order.
        """
        if self._kept is not None:
            return self._kept
        order = np.arange(len(self._places))
        if epoch is not None:
            order = np.random.default_rng([_ORDER, seed, epoch]).permutation(order)
        size = self.buffer // CHUNK
        return self._read(order[number * size : (number + 1) * size].tolist())

    def _read(self, chunks: list[int]) -> Block:
        found = Block([], [], [])
        with self.path.open("rb") as file:
            for chunk in chunks:
                file.seek(self._places[chunk])
                for number, line in zip(range(chunk * CHUNK, (chunk + 1) * CHUNK), file, strict=False):
                    try:
                        utterance = self._entry(line, number)
                    except ManifestError:
                        continue  # noted by the first pass
                    if utterance is None:
                        continue
                    seconds, why = self.usable(utterance)
                    if not why:
                        found.utterances.append(utterance)
                        found.seconds.append(seconds)
                        found.numbers.append(number)
        return found

    def __iter__(self) -> Iterator[Utterance]:
        """All usable lines in their order."""
        for number in range(self.blocks):
            yield from self.block(number, None).utterances

    def sample(self, most: int, seed: int) -> list[Utterance]:
        """Some lines at random, in their order; of a large manifest out of one block."""
        lines = self.block(0, 0, seed).utterances
        chosen = np.random.default_rng(seed).permutation(len(lines))[:most]
        return [lines[i] for i in sorted(chosen.tolist())]

    def _entry(self, line: bytes, number: int) -> Utterance | None:
        where = f"{self.path}, line {number + 1}"
        try:
            text = line.decode("utf-8-sig" if number == 0 else "utf-8")
            row = json.loads(text) if text.strip() else None
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{where} is no JSON: {error}") from error
        if row is None and not text.strip():
            return None
        if not isinstance(row, dict):
            raise ManifestError(f"{where} is no JSON object")
        return from_row(row, self.path.parent, where)


def _manifest(path: str | Path) -> Path:
    """The manifest itself, where a folder of shards is named."""
    place = Path(path)
    return place / INDEX if place.is_dir() and (place / INDEX).exists() else place


def _is_lines(path: Path) -> bool:
    """Whether a file has one JSON object a line and can be read from any line on."""
    if path.is_dir() or path.suffix in (".gz", ".scp"):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise ManifestError(f"cannot read the manifest {path}: {error}") from error
    return not start.startswith(b"[")
