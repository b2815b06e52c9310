"""Builds small recordings in many formats."""

import io

import av
import numpy as np
import soundfile

RATE = 16000


def tone(seconds=1.0, rate=RATE, frequency=440.0, level=0.3):
    """(n,) float32."""
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(samples, seed=0, level=3000):
    """(n,) int16."""
    return (np.random.default_rng(seed).standard_normal(samples) * level).clip(-32768, 32767).astype(np.int16)


def stored(samples, rate=RATE, kind="WAV", subtype="PCM_16"):
    """File bytes by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def encoded(samples, rate, container, codec, *, delay=0.0, jump=None, video=False):
    """File bytes by FFmpeg; samples (n, channels). `delay` and `jump` (at, by) move time stamps, in seconds."""
    buffer = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(buffer, "w", format=container) as file:
        if video:
            pictures = file.add_stream("mpeg4", rate=10)
            pictures.width, pictures.height = 64, 48
        stream = file.add_stream(codec, rate=rate) if codec else None
        if stream is not None:
            stream.layout = layout
        if video:
            _add_pictures(file, pictures)
        if stream is not None:
            if not stream.codec_context.is_open:
                stream.codec_context.open()
            convert = av.AudioResampler(stream.format.name, layout, rate, stream.codec_context.frame_size or 1024)
            for start in range(0, len(samples), rate // 10):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[start : start + rate // 10].T.astype(np.float32)), "fltp", layout
                )
                frame.rate, frame.pts = rate, start
                for ready in convert.resample(frame):
                    ready.pts += round(delay * rate)
                    if jump and ready.pts >= jump[0] * rate:
                        ready.pts += round(jump[1] * rate)
                    file.mux(stream.encode(ready))
            file.mux(stream.encode(None))
    return buffer.getvalue()


def _add_pictures(file, stream):
    for _ in range(10):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
    file.mux(stream.encode(None))


class Pipe(io.RawIOBase):
    """A file object that cannot seek."""

    def __init__(self, data):
        self.inner = io.BytesIO(data)

    def readable(self):
        return True

    def seekable(self):
        return False

    def read(self, size=-1):
        return self.inner.read(size)
