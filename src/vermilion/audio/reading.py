"""Any source → blocks of checked 16 kHz samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.arrays import MAX_RATE, MIN_RATE, read_array
from vermilion.audio.decode import Block, Warn, decode_blocks
from vermilion.audio.features import SAMPLE_RATE
from vermilion.audio.members import view
from vermilion.audio.mixing import mixed
from vermilion.audio.recording import Recording
from vermilion.audio.source import AudioInput, describe, is_file, open_binary
from vermilion.audio.streams import ALL, check_stream, count_streams
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
    stream: str = "",
) -> Iterator[NDArray[np.float32]]:
    """Read a recording piece by piece in bounded memory.

    Args:
        source: any `AudioInput`.
        channels: "mix" averages all channels that carry sound, "separate" keeps them.
        max_seconds: longest recording allowed.
        warnings: is appended one sentence for everything that is wrong but does not prevent reading.
        stream: which audio stream of several: its number from 1, its language, or "all" (each one a channel);
            empty = the one that players take, the next one where that is silent.

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

    wanted, name = check_stream(stream), describe(source)
    if isinstance(source, Recording):
        source = source.samples
    if not is_file(source):
        blocks = read_array(source, name).blocks()
        yield from _limited(_prepared(blocks, channels, name, warn), name, max_seconds)
        return
    with open_binary(source, max_seconds=max_seconds) as handle:
        count = count_streams(handle) if wanted == ALL else 0
        if count > 1:
            several = [decode_blocks(view(handle), name, warn, str(i)) for i in range(1, count + 1)]
            together = _side_by_side([_prepared(b, "mix", name, warn) for b in several])
            yield from _limited(together, name, max_seconds)
            return
        blocks = decode_blocks(handle, name, warn, "" if wanted == ALL else wanted)
        yield from _limited(_prepared(blocks, channels, name, warn), name, max_seconds)


def _prepared(blocks: Iterator[Block], channels: Channels, name: str, warn: Warn) -> Iterator[NDArray[np.float32]]:
    """Blocks as they come → (k, channels) at 16 kHz."""
    checked = _checked(blocks, name, warn)
    return _resampled(mixed(checked, warn) if channels == "mix" else _same_channels(checked, warn))


def _side_by_side(tracks: list[Iterator[NDArray[np.float32]]]) -> Iterator[NDArray[np.float32]]:
    """Mono tracks → blocks with one channel each; those that end early are silent from there."""
    held = [np.zeros((0, 1), np.float32) for _ in tracks]
    going = [True] * len(tracks)
    while any(going):
        for i, track in enumerate(tracks):
            if going[i] and not len(held[i]):
                block = next(track, None)
                going[i] = block is not None
                held[i] = held[i] if block is None else block
        ready = [len(h) for h, g in zip(held, going, strict=True) if g]
        count = min(ready) if ready else max(len(h) for h in held)
        if count:
            yield np.concatenate([np.pad(h[:count], ((0, count - len(h[:count])), (0, 0))) for h in held], axis=1)
            held = [h[count:] for h in held]


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
