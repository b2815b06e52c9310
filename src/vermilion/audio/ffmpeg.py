"""Decoding by FFmpeg's libraries (PyAV): any container, the audio stream that players take or that was asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.arrays import MAX_RATE, MIN_RATE, to_float32
from vermilion.audio.streams import order_of
from vermilion.audio.timeline import Piece, Timeline
from vermilion.errors import AudioError

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

    from vermilion.audio.decode import Block, Warn

_SILENT = 1e-4
"""peak of digital silence, with the noise of a lossy codec"""
_ZEROS = 1 << 18
"""samples"""
FORMATS = (
    "3dostr 4xm aa aac aax ac3 ac4 act adp ads adx aea aiff aix alaw amr amrnb amrwb apac apc ape aptx aptx_hd asf "
    "asf_o ast au avi avr bink binka boa bonk brstm bfstm caf codec2 codec2raw dfpwm dsf dss dts dtshd dv dxa ea "
    "eac3 epaf flac flv fsb fwse g722 g726 gsm gxf hca hcom iamf iff ilbc ircam iss kvag laf lc3 live_flv loas lvf "
    "lxf matroska,webm mca mcc mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mtaf mulaw mxf nistsphere "
    "nsv nut nuv ogg oma osq paf pva pvf qcp qoa r3d rka rm rpl rso sbc sdr2 sds shn siff smk sol sox spdif svag "
    "swf tak thp tta truehd ty voc vpk vqf w64 wav wavarc wc3movie wsaud wsd wsvqa wtv wv wve xa xvag xwma"
)
"""containers that hold sound themselves; playlists (hls, dash, concat, sdp …) would open other files and addresses"""
_DURATION_IS_EXACT = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flac", "wav", "mp3")


def ffmpeg_blocks(
    handle: BinaryIO, name: str, warn: Warn, *, lenient: bool = False, stream: str = ""
) -> Iterator[Block]:
    """Decode an audio stream; where none was asked for and the first choice is silent, the next one.

    Args:
        handle: seekable binary file at its beginning; nothing but this file is ever opened.
        name: for messages.
        warn: called with one sentence for everything that is wrong but does not prevent reading.
        lenient: another decoder already knew this kind of file: nothing to decode is then no error.
        stream: number from 1 or language; empty = the one that players take.

    Raises:
        AudioError: the file is no audio, has no such stream, or nothing in it can be decoded.
    """
    container = opened(handle)
    if container is None:
        if lenient:
            return
        raise AudioError(f"cannot read {name}: it is no audio or video file, or damaged beyond reading")
    with closing(container):
        chosen = _chosen(container, name, stream)
        indices = [s.index for s in chosen]
        numbers = {s.index: i for i, s in enumerate(container.streams.audio, 1)}
        if len(numbers) > 1 and not stream:
            warn(f"it has {len(numbers)} audio streams; number {numbers[indices[0]]} was used (--stream chooses)")
        decoder = _Decoder(container, container.streams[indices[0]], name, warn, lenient)
        if len(indices) == 1:
            yield from decoder.blocks()
            return
        silent = yield from _unless_silent(decoder.blocks())
    for index in indices[1:] if silent else ():
        handle.seek(0)
        container = opened(handle)
        if container is None:
            return
        with closing(container):
            decoder = _Decoder(container, container.streams[index], name, _ignore, lenient=True)
            if not (yield from _unless_silent(decoder.blocks())):
                warn(f"its audio stream {numbers[indices[0]]} is silent; number {numbers[index]} was used instead")
                return
    if silent:
        warn(f"all of its {len(numbers)} audio streams are silent")
        yield from _zeros(*silent)


def opened(handle: BinaryIO) -> InputContainer | None:
    """Open a file as a container that holds its sound itself; None where it is none."""
    import av

    try:
        return av.open(
            handle,
            mode="r",
            metadata_errors="ignore",
            buffer_size=1 << 16,
            io_open=_refuse,
            container_options={"format_whitelist": FORMATS.replace(" ", ",")},
        )
    except (av.FFmpegError, OSError, ValueError, RuntimeError):
        return None


def _refuse(url: str, *_: Any) -> NoReturn:
    raise PermissionError(f"a recording may not open other files ({url})")


def _ignore(_: str) -> None:
    """What is wrong with a stream that is only looked at."""


def _chosen(container: InputContainer, name: str, stream: str) -> list[AudioStream]:
    if not container.streams.audio:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams at all"
        raise AudioError(f"cannot read {name}: it has no audio stream (only {kinds})")
    return order_of(container.streams.audio, stream, name)


def _unless_silent(blocks: Iterator[Block]) -> Generator[Block, None, tuple[float, int, int] | None]:
    """Hold digital silence back until something sounds.

    Returns:
        Rate, samples and channels of a stream that is silent to its end (also where nothing could be decoded).
    """
    rate, count, channels, sounding = 16000.0, 0, 1, False
    for new_rate, block in blocks:
        if not sounding and float(np.abs(block).max(initial=0.0)) <= _SILENT:
            if (new_rate, block.shape[1]) != (rate, channels) and count:
                count = round(count * new_rate / rate)
            rate, channels, count = new_rate, block.shape[1], count + len(block)
            continue
        if not sounding and count:
            yield from _zeros(rate, count, channels)
        sounding = True
        yield new_rate, block
    return None if sounding else (rate, count, channels)


def _zeros(rate: float, count: int, channels: int) -> Iterator[Block]:
    while count > 0:
        size = min(count, _ZEROS)
        yield rate, np.zeros((size, channels), dtype=np.float32)
        count -= size


class _Decoder:
    """One pass over an audio stream of a container."""

    def __init__(self, container: InputContainer, stream: Any, name: str, warn: Warn, lenient: bool) -> None:
        """Take the stream."""
        from av.stream import Discard

        self.container = container
        self.stream: AudioStream = stream
        for other in container.streams:
            if other.index != self.stream.index:
                other.discard = Discard.all  # pictures are not even read
        self.stream.codec_context.thread_type = "NONE"  # frame threading would delay and, after damage, lose frames
        self.name, self.warn, self.lenient = name, warn, lenient
        origin = (container.start_time or 0) / 1_000_000  # of all streams: video may begin before the sound
        self.timeline = Timeline(origin, container.format.name, warn)
        self.damaged = 0

    def blocks(self) -> Iterator[Block]:
        """Yield pieces of about a second."""
        yield from self.timeline.blocks(self._pieces())
        self._finish()

    def _pieces(self) -> Iterator[Piece]:
        for frame in self._frames():
            samples = self._samples(frame)
            rate = float(frame.sample_rate)
            if not MIN_RATE <= rate <= MAX_RATE:
                raise AudioError(f"cannot read {self.name}: a sample rate of {rate:g} Hz is not usable")
            pts, base = frame.pts, frame.time_base
            start = None if pts is None or base is None else float(pts * base)
            yield Piece(start, rate, self._finite(samples))

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

    def _finite(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Damaged compressed sound may decode to NaN, which is silenced; in stored samples it is the caller's error."""
        if self.stream.codec_context.name.startswith("pcm_") or np.isfinite(samples).all():
            return samples
        self.damaged += 1
        return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)

    def _finish(self) -> None:
        seconds = self.timeline.seconds
        if seconds == 0 and self.damaged and not self.lenient:
            raise AudioError(f"cannot read {self.name}: its sound is damaged, nothing could be decoded")
        if self.damaged:
            self.warn("the file is damaged: what could be decoded was used")
        declared = 0.0 if self.timeline.wild else self._declared()
        if declared - seconds > max(0.5, 0.1 * declared):
            self.warn(f"the file announces {declared:.1f} seconds, {seconds:.1f} are there: it may be cut short")

    def _declared(self) -> float:
        """Length in seconds that the file announces for its sound, 0 if it says nothing dependable."""
        if self.container.format.name not in _DURATION_IS_EXACT:
            return 0.0
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        return 0.0 if self.container.streams.video else (self.container.duration or 0) / 1_000_000
