"""Any source → blocks of checked 16 kHz samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.arrays import MAX_RATE, MIN_RATE, read_array
from vermilion.audio.decode import Block, Warn, decode_blocks
from vermilion.audio.features import SAMPLE_RATE
from vermilion.audio.recording import Recording
from vermilion.audio.source import AudioInput, describe, is_file, open_binary
from vermilion.errors import AudioError, AudioLimitError, OptionsError

Channels = Literal["mix", "separate"]
_WRONG_SCALE = 32.0
"""no overshoot of a decoder or a mix gets this loud: such samples are 16-bit values stored as floats"""
_AUDIBLE_OVERSHOOT = 1.1


def iter_blocks(
    source: AudioInput,
    *,
    channels: Channels = "mix",
    max_seconds: float | None = None,
    warnings: list[str] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Read a recording piece by piece in bounded memory.

    Args:
        source: any `AudioInput`.
        channels: "mix" averages all channels, "separate" keeps them.
        max_seconds: longest recording allowed.
        warnings: is appended one sentence for everything that is wrong but does not prevent reading.

    Yields:
        (channels, k) float32 in [-1, 1] at 16 kHz, k > 0; one channel for "mix".

    Raises:
        AudioError: the source cannot be used.
        AudioLimitError: it is longer than `max_seconds`.
    """
    if channels not in ("mix", "separate"):
        raise OptionsError(f"channels is {channels!r}; it can be 'mix' or 'separate'")
    notes = [] if warnings is None else warnings

    def warn(note: str) -> None:
        if note not in notes:
            notes.append(note)

    checked = _checked(_blocks(source, max_seconds, warn), describe(source), warn)
    one_layout = _mixed(checked) if channels == "mix" else _same_channels(checked, warn)
    yield from _limited(_resampled(one_layout), describe(source), max_seconds)


def _blocks(source: Any, max_seconds: float | None, warn: Warn) -> Iterator[Block]:
    if isinstance(source, Recording):
        source = source.samples
    if not is_file(source):
        yield from read_array(source, describe(source)).blocks()
        return
    with open_binary(source, max_seconds=max_seconds) as handle:
        yield from decode_blocks(handle, describe(source), warn)


def _checked(blocks: Iterator[Block], name: str, warn: Warn) -> Iterator[Block]:
    """Refuse impossible rates and samples."""
    for rate, block in blocks:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(f"cannot read {name}: a sample rate of {rate:g} Hz is not usable")
        check_samples(block, name, warn)
        yield rate, block


def check_samples(block: NDArray[np.float32], name: str, warn: Warn) -> float:
    """Refuse samples that are not finite or on the wrong scale; return the peak."""
    peak = max(float(block.max()), -float(block.min())) if block.size else 0.0
    if not math.isfinite(peak):
        raise AudioError(f"cannot use {name}: it holds samples that are not numbers (NaN or infinite)")
    if peak > _WRONG_SCALE:
        raise AudioError(
            f"cannot use {name}: float samples reach {peak:g} but must lie in [-1, 1]; "
            "if they are 16-bit values, give them as int16 or divide by 32768"
        )
    if peak > _AUDIBLE_OVERSHOOT:
        warn(f"samples beyond full scale (up to {peak:.2f}) were clipped")
    return peak


def _mixed(blocks: Iterator[Block]) -> Iterator[Block]:
    for rate, block in blocks:
        yield rate, block if block.shape[1] == 1 else block.mean(axis=1, keepdims=True)


def _same_channels(blocks: Iterator[Block], warn: Warn) -> Iterator[Block]:
    """Keep the channel count of the beginning."""
    count = 0
    for rate, block in blocks:
        count = count or block.shape[1]
        if block.shape[1] < count:
            warn("the number of channels changes inside the recording; missing ones are silent")
            block = np.pad(block, ((0, 0), (0, count - block.shape[1])))
        elif block.shape[1] > count:
            warn("the number of channels changes inside the recording; later ones are left out")
            block = block[:, :count]
        yield rate, block


def _resampled(blocks: Iterator[Block]) -> Iterator[NDArray[np.float32]]:
    """Bring all blocks to 16 kHz with soxr; what is at 16 kHz passes as it is."""
    import soxr

    current, resampler, nothing = float(SAMPLE_RATE), None, np.zeros((0, 1), np.float32)
    for rate, block in blocks:
        if rate != current:  # at the beginning, or where chained streams meet
            if resampler is not None:
                yield resampler.resample_chunk(nothing, last=True)
            current, resampler, nothing = rate, None, np.zeros((0, block.shape[1]), np.float32)
            if rate != SAMPLE_RATE:
                resampler = soxr.ResampleStream(rate, SAMPLE_RATE, block.shape[1], dtype="float32", quality="HQ")
        yield block if resampler is None else resampler.resample_chunk(np.ascontiguousarray(block))
    if resampler is not None:
        yield resampler.resample_chunk(nothing, last=True)


def _limited(
    blocks: Iterator[NDArray[np.float32]], name: str, max_seconds: float | None
) -> Iterator[NDArray[np.float32]]:
    """(k, channels) → (channels, k) in [-1, 1], until the limit."""
    total = 0
    for block in blocks:
        total += len(block)
        if max_seconds is not None and total > max_seconds * SAMPLE_RATE:
            raise AudioLimitError(
                f"{name} is longer than the limit of {max_seconds:g} seconds; split it or raise the limit"
            )
        if len(block):
            yield np.clip(block.T, -1.0, 1.0)
