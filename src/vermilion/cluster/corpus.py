"""A corpus on one machine: manifest → workers → store, resumable at any instant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vermilion.cluster.provenance import Provenance
from vermilion.cluster.rows import failure_row, nameless, row
from vermilion.cluster.store import Form, Store, check_free, key_of
from vermilion.cluster.workers import Done, WorkerOptions, WorkerPool
from vermilion.errors import ManifestError, VermilionError
from vermilion.manifests import Utterance, iterate_manifest
from vermilion.transcript import Failure

if TYPE_CHECKING:
    from vermilion.pipeline import Pipeline


@dataclass(frozen=True)
class CorpusOptions:
    """What is written, and how."""

    form: Form = "jsonl"
    """Form of the parts."""
    rows_per_part: int = 1000
    """Rows of a part."""
    redact: bool = False
    """Put hashes in the place of paths."""
    retry_failures: bool = False
    """Try items again that failed in an earlier run."""
    workers: WorkerOptions = field(default_factory=WorkerOptions)
    """How the processes run."""


@dataclass(frozen=True)
class CorpusProgress:
    """Where a corpus job stands."""

    done: int
    """rows written, those of earlier runs included"""
    failed: int
    """items that failed for good"""
    skipped: int
    """items that an earlier run had finished"""
    seconds: float
    """of audio transcribed in this run"""
    elapsed: float
    """seconds of this run"""
    answered: int = 0
    """items that this run finished, well or not"""
    partial: int = 0
    """rows of this run in which a segment failed; `failures` in them says why"""

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.seconds / self.elapsed if self.elapsed else 0.0

    def remaining(self, total: int) -> float | None:
        """Seconds that the rest of so many items will take at this run's pace; None before there is one."""
        if not self.answered:
            return None
        return max(0, total - self.done - self.failed) * self.elapsed / self.answered


def run_corpus(
    manifest: str | Path,
    folder: str | Path,
    build: Callable[[], Pipeline],
    origin: Callable[[dict[str, str]], Provenance],
    options: CorpusOptions = CorpusOptions(),
    *,
    report: Callable[[CorpusProgress], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> CorpusProgress:
    """Transcribe a manifest into a folder; the same call goes on after any end.

    Args:
        manifest: see `vermilion.manifests.iterate_manifest`; read as it is needed, never whole.
        folder: of the outputs: `parts/`, `failures.jsonl`, `run.json`.
        build: makes a pipeline inside each worker; it is pickled.
        origin: names of the models by stage → what made the rows.
        options: what is written, and how.
        report: called after every item.
        stopped: when true, what is in hand is finished and the rest left for the next call.

    Returns:
        How it ended.

    Raises:
        ManifestError: the manifest cannot be read (single lines that are no entries are recorded as failures).
        OptionsError: the folder belongs to another process or was begun with other settings.
        CheckpointError, ModelError: the models cannot be loaded.
    """
    if not Path(manifest).exists():
        raise ManifestError(f"there is no manifest {manifest}") from FileNotFoundError(manifest)
    check_free(Path(folder))
    with WorkerPool(build, options.workers) as pool:
        made_by = origin(pool.models)
        settings = {"provenance": made_by.to_dict(), "form": options.form, "redact": options.redact}
        store = Store(Path(folder), options.form, settings, options.rows_per_part)
        try:
            if options.retry_failures:
                store.retry_failures()
            job = Corpus(store, made_by, options.redact, report)
            for done in pool.run(job.items(manifest), stopped):
                job.take(done)
            if not stopped():
                store.finish()
        finally:
            store.close()
    return job.progress()


def count(manifest: str | Path) -> tuple[int, float | None]:
    """How many items a manifest has, faulty lines included, and their seconds where all lines say them.

    Raises:
        ManifestError: it cannot be read.
    """
    faults: list[int] = []
    items, seconds, known = 0, 0.0, True
    for utterance in iterate_manifest(manifest, lambda number, _: faults.append(number)):
        items += 1
        known = known and utterance.duration is not None
        seconds += utterance.duration or 0.0
    return items + len(faults), seconds if known and items else None


class Corpus:
    """Items in, rows out; what every engine does around its own work."""

    def __init__(
        self, store: Store, origin: Provenance, redact: bool, report: Callable[[CorpusProgress], None]
    ) -> None:
        """Take the store, what makes the rows, whether paths are hidden, and who is told."""
        self.store, self.origin, self.redact, self.report = store, origin, redact, report
        self.salt = store.salt() if redact else ""
        self.begun: set[int] = set()
        """items of this run, by key: ids that come twice are found out"""
        self.skipped, self.answered, self.partial = 0, 0, 0
        self.seconds, self.began = 0.0, time.monotonic()

    def items(self, manifest: str | Path) -> Iterator[Utterance]:
        """What is still to be done."""
        for utterance in iterate_manifest(manifest, self._fault):
            item = nameless(utterance, self.salt) if self.salt else utterance
            key = key_of(item.id)
            if key in self.begun:
                self._twice(item)
                continue
            self.begun.add(key)
            if key in self.store.done:
                self.skipped += 1
            else:
                yield item

    def take(self, done: Done) -> None:
        """Write the row of an item."""
        if isinstance(done.result, Failure):
            error = done.result.error
            kind = "WorkerDied" if done.result.stage == "worker" else type(error).__name__
            self._fail(done.utterance, kind, str(error), done.attempts)
        else:
            self.store.add(row(done.utterance, done.result, self.origin, salt=self.salt))
            self.partial += bool(done.result.failures)
        self.answered += 1
        self.seconds += done.seconds
        self.report(self.progress())

    def progress(self) -> CorpusProgress:
        """Where the job stands."""
        elapsed = time.monotonic() - self.began
        return CorpusProgress(
            self.store.rows, self.store.failures, self.skipped, self.seconds, elapsed, self.answered, self.partial
        )

    def _fail(self, utterance: Utterance, kind: str, message: str, attempts: int) -> None:
        self.store.fail(failure_row(utterance, kind, message, attempts, self.origin, salt=self.salt))

    def _fault(self, number: int, error: ManifestError) -> None:
        """A line that is no entry: recorded once."""
        if self.salt:  # a message quotes what stands there, which may be a path
            error = ManifestError(f"line {number} of the manifest is no entry; the message is kept back with the paths")
        self._note(Utterance(f"line {number}", ""), error)

    def _twice(self, item: Utterance) -> None:
        again = replace(item, id=f"{item.id} (again: {item.audio} {item.offset:g})")
        if self.redact:
            again = replace(item, id=f"{item.id} (again)")
        what = "the id stands in the manifest twice; the first line was taken: give each an `id` of its own"
        self._note(again, ManifestError(what))

    def _note(self, utterance: Utterance, error: VermilionError) -> None:
        if utterance.id not in self.store:
            self._fail(utterance, type(error).__name__, str(error), 0)
