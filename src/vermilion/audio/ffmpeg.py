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
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

    from vermilion.audio.decode import Block, Warn

_GAP_SECONDS = 0.1
"""jumps of the time stamps over more than this become silence, so that times stay those of the recording"""
_MAX_GAP_SECONDS = 4 * 3600.0
"""more silence than this in one recording means broken time stamps"""
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


def ffmpeg_blocks(handle: BinaryIO, name: str, warn: Warn, *, lenient: bool = False) -> Iterator[Block]:
    """Decode the first audio stream.

    Args:
        handle: seekable binary file at its beginning; nothing but this file is ever opened.
        name: for messages.
        warn: called with one sentence for everything that is wrong but does not prevent reading.
        lenient: another decoder already knew this kind of file: nothing to decode is then no error.

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
        if lenient:
            return
        raise AudioError(f"cannot read {name}: it is no audio or video file, or damaged beyond reading") from error
    with closing(container):
        yield from _Decoder(container, name, warn, lenient).blocks()


def _refuse(url: str, *_: Any) -> NoReturn:
    raise PermissionError(f"a recording may not open other files ({url})")


class _Decoder:
    """One pass over the first audio stream of a container."""

    def __init__(self, container: InputContainer, name: str, warn: Warn, lenient: bool) -> None:
        """Choose the stream."""
        from av.stream import Discard

        if not container.streams.audio:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams at all"
            raise AudioError(f"cannot read {name}: it has no audio stream (only {kinds})")
        if len(container.streams.audio) > 1:
            warn(f"it has {len(container.streams.audio)} audio streams; the first one was used")
        self.container = container
        self.stream: AudioStream = container.streams.audio[0]
        if self.stream.codec_context is None:
            raise AudioError(f"cannot read {name}: no decoder for its audio codec")
        for other in container.streams:
            if other.index != self.stream.index:
                other.discard = Discard.all  # pictures are not even read
        self.stream.codec_context.thread_type = "NONE"  # frame threading would delay and, after damage, lose frames
        self.name, self.warn, self.lenient = name, warn, lenient
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
            samples = self._samples(frame)
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

        for packet in self._packets():
            try:
                yield from self.stream.decode(packet)
            except (av.FFmpegError, ValueError, EOFError, NotImplementedError):
                self.damaged += 1

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        import av

        packets = self.container.demux(self.stream)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except IndexError:  # PyAV does not know streams that begin inside a file: pass over their packet
                packets = self.container.demux(self.stream)
            except (av.FFmpegError, OSError, ValueError, EOFError, RuntimeError):
                self.damaged += 1
                return

    def _samples(self, frame: AudioFrame) -> NDArray[np.float32]:
        """(n, channels) float32."""
        try:
            array: NDArray[Any] = frame.to_ndarray()  # planar: (channels, n); packed: (1, n * channels)
        except ValueError as error:
            raise AudioError(f"cannot read {self.name}: {frame.format.name} samples are not supported") from error
        return to_float32(array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels))

    def _gap(self, frame: AudioFrame, channels: int) -> Iterator[NDArray[np.float32]]:
        """Silence up to the frame's time stamp."""
        if frame.pts is None or frame.time_base is None:
            return
        gap = float(frame.pts * frame.time_base) - self.origin - self.seconds
        if gap <= _GAP_SECONDS:
            return
        if gap > self.silence_left:
            self.warn(f"its time stamps jump by {gap:.0f} seconds, which was ignored")
            self.origin += gap
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
        if self.seconds == 0 and self.damaged and not self.lenient:
            raise AudioError(f"cannot read {self.name}: its sound is damaged, nothing could be decoded")
        if self.damaged:
            self.warn("the file is damaged: what could be decoded was used")
        declared = self._declared()
        if declared - self.seconds > max(0.5, 0.1 * declared):
            self.warn(f"the file announces {declared:.1f} seconds, {self.seconds:.1f} are there: it may be cut short")

    def _declared(self) -> float:
        """Length in seconds that the file announces for its sound, 0 if it says nothing dependable."""
        if self.container.format.name not in _DURATION_IS_EXACT:
            return 0.0
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        return 0.0 if self.container.streams.video else (self.container.duration or 0) / 1_000_000
