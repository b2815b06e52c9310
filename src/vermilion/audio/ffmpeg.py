"""Decoding by FFmpeg's libraries (PyAV): any container, first audio stream, silence where its time stamps jump."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.arrays import MAX_RATE, MIN_RATE, to_float32
from vermilion.errors import AudioError

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

    from vermilion.audio.decode import Block, Warn

_GAP_SECONDS = 0.1
"""jumps of the time stamps over more than this become silence, so that times stay those of the recording"""
_MAX_GAP_SECONDS = 4 * 3600.0
_FORMATS = (
    "3dostr 4xm aa aac aax ac3 ac4 act adp ads adx aea aiff aix alaw amr amrnb amrwb apac apc ape aptx aptx_hd asf "
    "asf_o ast au avi avr bink binka boa bonk brstm bfstm caf codec2 codec2raw dfpwm dsf dss dts dtshd dv dxa ea "
    "eac3 epaf flac flv fsb fwse g722 g726 gsm gxf hca hcom iamf iff ilbc ircam iss kvag laf lc3 live_flv loas lvf "
    "lxf matroska,webm mca mcc mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mtaf mulaw mxf nistsphere "
    "nsv nut nuv ogg oma osq paf pva pvf qcp qoa r3d rka rm rpl rso sbc sdr2 sds shn siff smk sol sox spdif svag "
    "swf tak thp tta truehd ty voc vpk vqf w64 wav wavarc wc3movie wsaud wsd wsvqa wtv wv wve xa xvag xwma"
)
"""containers that hold sound themselves; playlists (hls, dash, concat, sdp …) would open other files and addresses"""
_DURATION_IS_EXACT = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flac", "wav", "mp3")


_ZEROS_SECONDS = 10
"""silence is delivered in pieces of this length"""


def ffmpeg_blocks(handle: BinaryIO, name: str, warn: Warn, *, resumed: bool = False) -> Iterator[Block]:
    """Decode the first audio stream.

    Args:
        handle: seekable binary file at its beginning; nothing but this file is ever opened.
        name: for messages.
        warn: called with one sentence for everything that is wrong but does not prevent reading.
        resumed: another decoder gave up in the middle of this file: nothing to decode is then no error.

    Raises:
        AudioError: the file is no audio, has no audio stream, or nothing in it can be decoded.
    """
    import av

    try:
        container = av.open(
            handle,
            mode="r",
            metadata_errors="ignore",
            buffer_size=1 << 16,
            io_open=_refuse,
            container_options={"format_whitelist": _FORMATS.replace(" ", ",")},
        )
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        if resumed:
            warn("the file is damaged: decoding stopped early")
            return
        raise AudioError(f"cannot read {name}: it is no audio or video file, or damaged beyond reading") from error
    with closing(container):
        yield from _Decoder(container, name, warn, resumed).blocks()


def _refuse(url: str, *_: Any) -> NoReturn:
    raise PermissionError(f"a recording may not open other files ({url})")


class _Decoder:
    """One pass over the first audio stream of a container."""

    def __init__(self, container: InputContainer, name: str, warn: Warn, resumed: bool) -> None:
        """Choose the stream."""
        if not container.streams.audio:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams at all"
            raise AudioError(f"cannot read {name}: it has no audio stream (only {kinds})")
        if len(container.streams.audio) > 1:
            warn(f"it has {len(container.streams.audio)} audio streams; the first one was used")
        self.container = container
        self.stream: AudioStream = container.streams.audio[0]
        self.stream.codec_context.thread_type = "NONE"  # frame threading would delay and, after damage, lose frames
        self.name, self.warn, self.resumed = name, warn, resumed
        self.origin = (container.start_time or 0) / 1_000_000  # of all streams: video may begin before the sound
        self.seconds = 0.0  # delivered so far
        self.silence_left = _MAX_GAP_SECONDS
        self.damaged = 0

    def blocks(self) -> Iterator[Block]:
        """Yield pieces of about a second."""
        waiting: list[NDArray[np.float32]] = []
        rate, count = 0.0, 0
        for new_rate, samples in self._pieces():
            changed = new_rate != rate or (waiting and waiting[0].shape[1] != samples.shape[1])
            if waiting and (changed or count >= rate):
                yield rate, np.concatenate(waiting)
                waiting, count = [], 0
            rate = new_rate
            waiting.append(samples)
            count += len(samples)
        if waiting:
            yield rate, np.concatenate(waiting)
        self._finish()

    def _pieces(self) -> Iterator[Block]:
        for frame in self._frames():
            samples = _samples(frame)
            rate = float(frame.sample_rate)
            if not MIN_RATE <= rate <= MAX_RATE:
                raise AudioError(f"cannot read {self.name}: a sample rate of {rate:g} Hz is not usable")
            for zeros in self._gap(frame, samples.shape[1]):
                yield rate, zeros
            self.seconds += len(samples) / rate
            yield rate, self._finite(samples)

    def _frames(self) -> Iterator[AudioFrame]:
        """Decode packet after packet; damaged ones are left out."""
        import av

        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError, ValueError, EOFError):
                self.damaged += 1
                return
            try:
                yield from self.stream.decode(packet)
            except (av.FFmpegError, ValueError, EOFError, NotImplementedError):
                self.damaged += 1

    def _gap(self, frame: AudioFrame, channels: int) -> Iterator[NDArray[np.float32]]:
        """Silence up to the frame's time stamp."""
        if frame.pts is None or frame.time_base is None:
            return
        gap = min(float(frame.pts * frame.time_base) - self.origin - self.seconds, self.silence_left)
        if gap <= _GAP_SECONDS:
            return
        self.silence_left -= gap
        self.seconds += gap
        left = round(gap * frame.sample_rate)
        while left > 0:
            count = min(left, _ZEROS_SECONDS * frame.sample_rate)
            yield np.zeros((count, channels), dtype=np.float32)
            left -= count

    def _finite(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Damaged compressed sound may decode to NaN, which is silenced; in stored samples it is the caller's error."""
        if self.stream.codec_context.name.startswith("pcm_") or np.isfinite(samples).all():
            return samples
        self.damaged += 1
        return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)

    def _finish(self) -> None:
        if self.seconds == 0 and self.damaged and not self.resumed:
            raise AudioError(f"cannot read {self.name}: its sound is damaged, nothing could be decoded")
        declared = (self.container.duration or 0) / 1_000_000
        if self.resumed or self.damaged:
            self.warn("the file is damaged: what could be decoded was used")
        elif self.container.format.name in _DURATION_IS_EXACT and self.seconds < 0.9 * declared - 1:
            self.warn(f"the file announces {declared:.0f} seconds, {self.seconds:.0f} are there: it may be cut short")


def _samples(frame: AudioFrame) -> NDArray[np.float32]:
    """(n, channels) float32."""
    array: NDArray[Any] = frame.to_ndarray()  # planar: (channels, n); packed: (1, n * channels)
    frames = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    return to_float32(frames)
