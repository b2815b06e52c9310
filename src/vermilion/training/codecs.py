"""What telephones and low bit rates do to speech: samples through a codec and back, nothing moved in time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE, load_audio
from vermilion.errors import OptionsError, TrainingError

Samples = NDArray[np.float32]

if TYPE_CHECKING:
    import av

NAMES = ("mulaw", "alaw", "narrowband", "opus", "mp3", "g722")
"""the codecs that are known"""
_NARROW_RATE = 8000
_MU = 255.0
_A = 87.6


@dataclass(frozen=True)
class _Container:
    """How FFmpeg writes a codec."""

    codec: str
    format: str
    bit_rates: tuple[int, ...]
    """bits per second, one is drawn"""
    delay: int
    """samples by which its decoder is late, which the container does not say"""


_FFMPEG = {
    "opus": _Container("libopus", "ogg", (8000, 12000, 16000, 24000), 0),
    "mp3": _Container("libmp3lame", "mp3", (16000, 24000, 32000, 48000), 0),
    "g722": _Container("g722", "wav", (64000,), 22),
}


def transmit(samples: Samples, rng: np.random.Generator, *, names: Sequence[str] = NAMES) -> Samples:
    """Send samples through a codec drawn from `names`.

    Args:
        samples: (n,) float32 at 16 kHz in [-1, 1].
        rng: draws codec and bit rate.
        names: some of `NAMES`; `mulaw` and `alaw` come with the telephone's 8 kHz sampling.

    Returns:
        (n,) float32 in [-1, 1]; every sound where it was, to about a millisecond.

    Raises:
        OptionsError: a name is not known.
        TrainingError: this build of FFmpeg lacks the codec.
    """
    name = names[int(rng.integers(len(names)))]
    if name in _FFMPEG:
        container = _FFMPEG[name]
        return _through_ffmpeg(samples, container, container.bit_rates[int(rng.integers(len(container.bit_rates)))])
    if name == "mulaw":
        return narrowband(samples, mulaw)
    if name == "alaw":
        return narrowband(samples, alaw)
    if name == "narrowband":
        return narrowband(samples)
    raise OptionsError(f"there is no codec {name!r}; there are {', '.join(NAMES)}")


def mulaw(samples: Samples) -> Samples:
    """Round to the 8 bits of G.711's μ-law (its continuous form)."""
    squeezed = np.sign(samples) * np.log1p(_MU * np.abs(samples)) / np.log1p(_MU)
    coarse = np.rint(squeezed * 127) / 127
    restored: Samples = (np.sign(coarse) * np.expm1(np.abs(coarse) * np.log1p(_MU)) / _MU).astype(np.float32)
    return restored


def alaw(samples: Samples) -> Samples:
    """Round to the 8 bits of G.711's A-law (its continuous form)."""
    scale = 1 + np.log(_A)
    size = np.abs(samples)
    squeezed = np.where(size < 1 / _A, _A * size, 1 + np.log(np.maximum(_A * size, 1.0))) / scale
    coarse = (np.floor(squeezed * 128).clip(0, 127) + 0.5) / 128  # A-law has no zero
    size = np.where(coarse < 1 / scale, coarse * scale / _A, np.exp(coarse * scale - 1) / _A)
    restored: Samples = np.where(samples < 0, -size, size).astype(np.float32)
    return restored


def narrowband(samples: Samples, companding: Callable[[Samples], Samples] | None = None) -> Samples:
    """Sample at 8 kHz, pass each sample through a function if one is given, and come back to 16 kHz."""
    import soxr

    low = np.clip(soxr.resample(samples, SAMPLE_RATE, _NARROW_RATE, quality="HQ"), -1.0, 1.0)
    if companding is not None:
        low = companding(low)
    return _of_length(np.clip(soxr.resample(low, _NARROW_RATE, SAMPLE_RATE, quality="HQ"), -1.0, 1.0), len(samples))


def _of_length(samples: Samples, count: int) -> Samples:
    samples = samples[:count]
    return samples if len(samples) == count else np.pad(samples, (0, count - len(samples)))


def _through_ffmpeg(samples: Samples, container: _Container, bit_rate: int) -> Samples:
    """Encode to memory and decode; a signal too short for a packet comes back as it is."""
    if len(samples) < SAMPLE_RATE // 10:
        return samples
    data = encode(np.pad(samples, (0, container.delay)), container.codec, container.format, bit_rate)
    return _of_length(load_audio(data)[container.delay :], len(samples))


def encode(samples: Samples, codec: str, file_format: str, bit_rate: int) -> bytes:
    """Encode mono samples at 16 kHz.

    Args:
        samples: (n,) float32 in [-1, 1].
        codec: FFmpeg's name of an encoder.
        file_format: FFmpeg's name of a container.
        bit_rate: bits per second.

    Raises:
        TrainingError: this build of FFmpeg lacks the codec.
    """
    import av

    target = io.BytesIO()
    pcm = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
    try:
        with av.open(target, "w", format=file_format) as output:
            stream = cast("av.AudioStream", output.add_stream(codec, rate=SAMPLE_RATE, layout="mono"))
            stream.bit_rate = bit_rate
            frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            for encoded in (*stream.encode(frame), *stream.encode(None)):
                output.mux(encoded)
    except (av.FFmpegError, ValueError) as error:
        raise TrainingError(
            f"FFmpeg cannot encode {codec} here ({error}): take it out of the options' codecs"
        ) from error
    return target.getvalue()
