"""Runs a task over test sets: batches, the journal of answers, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vermilion.evaluation.journal import Answer, Journal
from vermilion.evaluation.sets import NamedSet
from vermilion.evaluation.tasks import Task

BATCH = 16
"""recordings that a system is asked about at once"""
BATCH_SECONDS = 120.0
"""or fewer, where the manifest says how long they are"""


@dataclass(frozen=True)
class Step:
    """How far an evaluation has come."""

    set_name: str
    done: int
    """recordings, those of earlier runs included"""
    total: int
    audio_seconds: float
    """answered in this run"""
    resumed: int
    """recordings that an earlier run had answered"""


def run(
    task: Task, sets: Sequence[NamedSet], journal: Journal, progress: Callable[[Step], None] = lambda _: None
) -> dict[str, list[Answer]]:
    """Ask a system about every recording that the journal has no answer for.

    Args:
        task: what is asked, and the system.
        sets: the recordings.
        journal: what is known already; every new answer is on disk before the next batch.
        progress: told after each batch.

    Returns:
        Answers by the set's name, one per utterance in order.
    """
    total = sum(len(s.utterances) for s in sets)
    open_ = {s.name: [u for u in s.utterances if journal.get(s.name, u) is None] for s in sets}
    resumed = total - sum(map(len, open_.values()))
    done, seconds = resumed, 0.0
    found: dict[str, list[Answer]] = {}
    for test_set in sets:
        fresh: dict[str, Answer] = {}
        progress(Step(test_set.name, done, total, seconds, resumed))
        for batch in batches([u.duration for u in open_[test_set.name]]):
            utterances = [open_[test_set.name][i] for i in batch]
            for utterance, answer in zip(utterances, task.answer(utterances), strict=True):
                journal.add(test_set.name, utterance, answer)
                fresh[utterance.id] = answer
                seconds += answer.audio_seconds
            done += len(batch)
            progress(Step(test_set.name, done, total, seconds, resumed))
        known = {u.id: journal.get(test_set.name, u) for u in test_set.utterances}
        found[test_set.name] = [known[u.id] or fresh[u.id] for u in test_set.utterances]
    return found


def batches(durations: Sequence[float | None]) -> list[list[int]]:
    """Cut a list into runs of at most `BATCH` recordings and, where lengths are known, `BATCH_SECONDS`."""
    out: list[list[int]] = []
    seconds = 0.0
    for i, duration in enumerate(durations):
        length = duration or 0.0
        if not out or len(out[-1]) == BATCH or seconds + length > BATCH_SECONDS:
            out.append([])
            seconds = 0.0
        out[-1].append(i)
        seconds += length
    return out
