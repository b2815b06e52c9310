"""A clean manifest out of a dirty one: what `checking` finds is left out or put right, and every line of it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from vermilion.errors import ManifestError, OptionsError, TrainingError
from vermilion.manifests import BYTES, Utterance, write_manifest
from vermilion.training.checking import FAULTS, CheckOptions, Doubles, Fault, Look, differ, look_at
from vermilion.training.conversion import iterate_any
from vermilion.training.parallel import Report, in_order

KINDS = tuple(kind.replace(" ", "-") for kind in FAULTS)
"""kinds of faults, as options name them"""


@dataclass(frozen=True)
class CleanOptions:
    """What is left out."""

    keep: tuple[str, ...] = ()
    """Kinds of faults whose lines stay: id, stretch, missing, unreadable, empty, duration, damaged, silent, no-text,
    odd-text, too-much-text, language. May be repeated."""
    durations: Literal["fix", "drop"] = "fix"
    """Of a line whose duration is not that of its recording: fix = write the true one (also where a line gives none),
    drop = leave the line out."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: there is no such kind, or no such way.
        """
        known = [kind for kind in KINDS if kind != "line"]
        if unknown := set(self.keep) - set(known):
            raise OptionsError(f"there is no fault {', '.join(sorted(unknown))} to keep; there are {', '.join(known)}")
        if self.durations not in ("fix", "drop"):
            raise OptionsError(f"durations is {self.durations!r}; there are fix, drop")


@dataclass(frozen=True)
class Cleaned:
    """What became of a manifest."""

    lines: int
    """entries, faulty ones included"""
    utterances: int
    """that were written"""
    seconds: float
    """of those, where it is known"""
    fixed: list[Fault]
    """durations that were wrong"""
    left_out: list[Fault]
    """the first fault of each line that was left out"""

    def counts(self) -> dict[str, int]:
        """How many lines were left out for each kind of fault."""
        found = Counter(fault.kind for fault in self.left_out)
        return {kind: found[kind] for kind in FAULTS if found[kind]}


def clean(
    manifest: str | Path,
    target: str | Path,
    options: CleanOptions = CleanOptions(),
    checks: CheckOptions = CheckOptions(),  # noqa: B008 - frozen
    processes: int = 1,
    report: Report | None = None,
) -> Cleaned:
    """Write the lines of a manifest that are in order.

    Args:
        manifest: see `iterate_any`.
        target: the manifest to write; may be the same file.
        options: what is left out.
        checks: what is looked at.
        processes: how many decode recordings.
        report: progress.

    Raises:
        ManifestError: the file cannot be read at all.
        TrainingError: no line is left; nothing is written.
    """
    cleaner = _Cleaner(Path(manifest), options, checks)
    count = write_manifest(target, cleaner.lines(processes, report))
    return Cleaned(cleaner.count, count, cleaner.seconds, cleaner.fixed, cleaner.left_out)


class _Cleaner:
    """Line after line; remembers what it keeps."""

    def __init__(self, manifest: Path, options: CleanOptions, checks: CheckOptions) -> None:
        self.manifest, self.options, self.checks = manifest, options, checks
        self.kept_kinds = {kind.replace("-", " ") for kind in options.keep}
        self.doubles = Doubles()
        self.uses = Counter(u.audio for u in iterate_any(manifest, lambda *_: None) if BYTES not in u.extra)
        self.count, self.kept, self.seconds = 0, 0, 0.0
        self.fixed: list[Fault] = []
        self.left_out: list[Fault] = []

    def lines(self, processes: int, report: Report | None) -> Iterator[Utterance]:
        """Yield what stays."""
        source = iterate_any(self.manifest, self._bad_line)
        for look in in_order(partial(look_at, options=self.checks), source, processes):
            self.count += 1
            utterance = self._judged(look)
            if utterance is not None:
                self.kept += 1
                self.seconds += utterance.duration or 0.0
                yield utterance
            if report is not None:
                report(self.count, look.utterance.id)
        if not self.kept:
            first = f": {self.left_out[0].id}: {self.left_out[0].detail}" if self.left_out else ""
            raise TrainingError(f"no line of {self.manifest} is left, so nothing is written{first}")

    def _bad_line(self, number: int, error: ManifestError) -> None:
        self.count += 1
        self.left_out.append(Fault(f"line {number}", "line", str(error)))

    def _judged(self, look: Look) -> Utterance | None:
        """The line as it is to be written, or None."""
        utterance, wrong = self._timed(look)
        faults = [fault for fault in look.faults if fault.kind not in self.kept_kinds | {"duration"}]
        if wrong is not None and self.options.durations == "drop" and "duration" not in self.kept_kinds:
            faults.append(wrong)
        if not faults:  # what is left out stands in nobody's way
            faults = [fault for fault in self.doubles.of(look) if fault.kind not in self.kept_kinds]
        if faults:
            self.left_out.append(faults[0])
            return None
        if wrong is not None and utterance is not look.utterance:
            self.fixed.append(wrong)
        return utterance

    def _timed(self, look: Look) -> tuple[Utterance, Fault | None]:
        """The line with its true duration, where that is known and wanted, and what was wrong with it."""
        utterance, claimed = look.utterance, look.utterance.duration
        wrong = next((fault for fault in look.faults if fault.kind == "duration"), None)
        true = look.seconds
        alone = not utterance.offset and self.uses[utterance.audio] < 2
        if wrong is None and claimed is not None and alone and look.whole is not None and differ(claimed, look.whole):
            true = look.whole
            wrong = Fault(utterance.id, "duration", f"{claimed:.2f} s are claimed, {true:.2f} s are there")
        if self.options.durations == "drop" or "duration" in self.kept_kinds or look.whole is None or not true:
            return utterance, wrong
        if claimed is None or wrong is not None:
            return replace(utterance, duration=round(true, 6)), wrong
        return utterance, wrong
