"""Any manifest → the native one, durations measured where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from vermilion.audio import SAMPLE_RATE, iter_blocks
from vermilion.errors import AudioError, ManifestError
from vermilion.manifests import Utterance, iterate_manifest
from vermilion.training.lhotse import is_cut_set, iterate_cuts
from vermilion.training.parallel import in_order

OnFault = Callable[[int, ManifestError], None]


def iterate_any(path: str | Path, on_fault: OnFault | None = None, *, whole: bool = False) -> Iterator[Utterance]:
    """Read JSON lines, WeNet's and Kaldi's lists, or a lhotse cut set.

    Args:
        path: of a file or Kaldi folder.
        on_fault: is given the number of each faulty line and its fault; reading goes on.
        whole: cuts become one utterance each, not one per supervision.

    Raises:
        ManifestError: it cannot be read.
    """
    if is_cut_set(path):
        return iterate_cuts(path, whole=whole, on_fault=on_fault)
    return iterate_manifest(path, on_fault)


def measured(
    utterances: Iterator[Utterance], processes: int = 1, *, again: bool = False
) -> Iterator[tuple[Utterance, str]]:
    """Add durations by decoding.

    Args:
        utterances: any.
        processes: how many decode.
        again: durations that are there are replaced by what is really there.

    Yields:
        Each utterance with its duration, and what was wrong with its recording ('' = nothing).
    """
    return in_order(partial(_measured, again=again), utterances, processes)


def _measured(utterance: Utterance, again: bool) -> tuple[Utterance, str]:
    if utterance.duration is not None and not again:
        return utterance, ""
    try:
        count = sum(block.shape[1] for block in iter_blocks(utterance.source()))
    except (AudioError, ManifestError) as error:
        return utterance, str(error)
    left = count / SAMPLE_RATE - utterance.offset
    if left <= 0:
        return utterance, f"{utterance.audio} ends before {utterance.offset:.2f} s"
    duration = left if utterance.duration is None else min(left, utterance.duration)
    return replace(utterance, duration=round(duration, 6)), ""
