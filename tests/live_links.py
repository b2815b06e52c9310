"""Engines in the same process for tests of the sockets: real live sessions over fake models, and ways to go wrong."""

import asyncio
import contextlib
import random
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket

from vermilion.errors import ModelError, VermilionError
from vermilion.live import LiveOptions, LiveTranscriber
from vermilion.live.events import Final, SpeechEnded, SpeechStarted
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.server.errors import Busy
from vermilion.server.funasr import serve_funasr
from vermilion.server.native import serve_live
from vermilion.server.realtime import serve_realtime
from vermilion.server.running import bind
from vermilion.server.socket_helpers import SocketLimits
from vermilion.server.wyoming import WyomingServer
from vermilion.testing import FakeStreamDetector
from vermilion.transcript import Failure, Recognition, Word

RATE = 16000
TEXT = "x" * 50_000


class Counter:
    """A word per half second; English ("one two three") or Chinese."""

    name, punctuates = "counter", True

    def __init__(self, words=("one", "two", "three", "four", "five", "six", "seven", "eight"), blank=" "):
        self.words, self.blank, self.fail, self.delay = words, blank, False, 0.0

    def recognize(self, recordings, options=None, /):
        time.sleep(self.delay)
        return [self._one(*recording) for recording in recordings]

    def _one(self, samples, rate):
        if self.fail:
            return Failure("x", ModelError("no memory"), "asr")
        count = min(len(self.words), max(1, round(2 * len(samples) / rate)))
        words = [Word(self.words[i], i / 2, i / 2 + 0.4, 0.9) for i in range(count)]
        return Recognition(self.blank.join(w.text for w in words), 0.9, words=words, model=self.name)


@dataclass
class Engines:
    """`Backend`; the knobs may be turned while it works."""

    recognizer: Counter = field(default_factory=Counter)
    background: bool = False
    """run the networks in a thread; else partials are the same at every run"""
    most: int = 100
    """sessions at once; more are `Busy`"""
    breaks_after: float | None = None
    """seconds of audio after which a session's engine fails"""
    error: Exception = field(default_factory=lambda: VermilionError("the engine ended"))
    stuck: bool = False
    """audio is not taken any more"""
    flood: bool = False
    """events without end"""
    slow: float = 0.0
    """seconds that `transcribe_samples` takes"""
    open_sessions: int = 0
    opened: int = 0
    languages: list = field(default_factory=list)
    transcribing: int = 0

    def __post_init__(self):
        pipeline = Pipeline(None, None, self.recognizer, None, PipelineOptions(vad=False))
        self.live = LiveTranscriber(pipeline, FakeStreamDetector(), background=self.background)

    async def open_live(self, options: LiveOptions, language=None):
        await asyncio.sleep(0)
        if self.open_sessions >= self.most:
            raise Busy(f"{self.most} sessions are open already", retry_after=1)
        self.languages.append(language)
        return Link(self, options, language)

    async def transcribe_samples(self, pcm, rate, language=None):
        assert pcm
        self.transcribing += 1
        try:
            await asyncio.sleep(self.slow)
            if self.breaks_after == 0:
                raise self.error
            return self.live.pipeline.transcribe((np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, rate))
        finally:
            self.transcribing -= 1

    async def transcribe(self, task, report=None):
        raise NotImplementedError

    async def call(self, method, **values):
        raise NotImplementedError


class Link:
    """`LiveLink`."""

    def __init__(self, engines, options, language):
        loop = asyncio.get_running_loop()
        self.engines, self.heard, self._open = engines, 0.0, True
        self.session = engines.live.session(
            options, notify=lambda: loop.call_soon_threadsafe(self._poll), language=language
        )
        self._queue = asyncio.Queue()
        engines.open_sessions += 1
        engines.opened += 1

    async def send(self, pcm, rate):
        assert isinstance(pcm, bytes)
        assert len(pcm) % 2 == 0
        while self.engines.stuck:
            await asyncio.sleep(0.01)
        if not self._open:
            return
        self.heard += len(pcm) / 2 / rate
        self._tell(self.session.accept(np.frombuffer(pcm, "<i2"), rate))
        if self.engines.breaks_after is not None and self.heard >= self.engines.breaks_after:
            self._over(self.engines.error)

    async def cut(self):
        if self._open:
            self._tell(self.session.cut())
            self._work()

    async def finish(self):
        if self._open:
            self._tell(self.session.stop())
            self._work()

    async def close(self):
        self.session.close()
        self._over(None)

    async def events(self):
        while self.engines.flood:
            yield SpeechStarted(1, 0.0)
            yield SpeechEnded(1, 1.0)
            yield Final(1, 0.0, 1.0, TEXT)
        while (item := await self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            for event in item:
                yield event

    def _work(self):
        while not self.engines.background and self.engines.live.engine.work():
            pass
        self._poll()

    def _poll(self):
        if self._open:
            self._tell(self.session.poll())
            if self.session.is_over:
                self._over(None)

    def _tell(self, events):
        if events:
            self._queue.put_nowait(events)

    def _over(self, last):
        if self._open:
            self._open = False
            self.engines.open_sessions -= 1
            self._queue.put_nowait(last)


@dataclass
class Served:
    """Where the sockets are."""

    engines: Engines
    port: int
    wyoming_port: int
    loop: asyncio.AbstractEventLoop
    wyoming: WyomingServer

    def url(self, path="/"):
        return f"ws://127.0.0.1:{self.port}{path}"

    def settle(self, seconds=10.0):
        """Wait until no session is open and none of our tasks is left."""
        end = time.monotonic() + seconds
        while self.engines.open_sessions or self.engines.transcribing or self.tasks():
            assert time.monotonic() < end, (self.engines.open_sessions, self.engines.transcribing, self.tasks())
            time.sleep(0.02)

    def tasks(self):
        """Tasks of the server that run our code."""

        async def find():
            names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
            return [name for name in names if not name.startswith(("Server", "Lifespan", "served", "Served", "_main"))
                    and "lifespan" not in name and "run_asgi" not in name]  # fmt: skip

        return asyncio.run_coroutine_threadsafe(find(), self.loop).result(10)


@contextlib.contextmanager
def served(engines=None, *, limits=None, languages=("en", "zh"), wyoming=None, models=("counter", "whisper-1")):
    """All sockets on loopback, in a thread; nothing may be left at the end."""
    engines = engines or Engines()
    found = {}
    more = {} if limits is None else {"limits": SocketLimits(**limits)}
    app = FastAPI(lifespan=lambda _: _lifespan(engines, found, list(languages), wyoming or {}))

    @app.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket):
        await serve_realtime(websocket, engines, models=models, languages=languages, **more)

    @app.websocket("/v1/live")
    async def live(websocket: WebSocket):
        rate, options = int(websocket.query_params.get("rate", 16000)), LiveOptions(events=False)
        language = websocket.query_params.get("language")
        await serve_live(websocket, engines, rate=rate, language=language, options=options, **more)

    @app.websocket("/")
    async def funasr(websocket: WebSocket):
        await serve_funasr(websocket, engines, **more)

    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws_max_size=16 << 20))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    there = Served(engines, listener.getsockname()[1], found["port"], found["loop"], found["server"])
    try:
        yield there
        there.settle()
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        engines.live.close()


@contextlib.asynccontextmanager
async def _lifespan(engines, found, languages, more):
    given = {"models": {"asr": "counter"}, "languages": languages, "version": "1.0"} | more
    server = WyomingServer(engines, **given)
    await server.start("127.0.0.1", 0)
    found.update(server=server, port=server.port, loop=asyncio.get_running_loop())
    yield
    await server.close()


def talk(*lengths, rate=RATE, seed=0):
    """Silence and noise by turns, beginning with silence; seconds → int16 bytes."""
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(-0.5, 0.5, int(s * rate)) if i % 2 else np.zeros(int(s * rate)) for i, s in enumerate(lengths)]
    return (np.concatenate(parts) * 32767).astype("<i2").tobytes()


def chunks(data, size):
    """Pieces of a size, or of random sizes below it if it is a `random.Random`."""
    start = 0
    while start < len(data):
        step = size.choice((1, 3, 100, 1777, 8000, 40_000)) if isinstance(size, random.Random) else size
        yield data[start : start + step]
        start += step


def mutations(seeds, count, seed):
    """Damaged copies, reproducible."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(5):
                case 0:
                    data[at : at + 1] = bytes([rng.randrange(256)])
                case 1:
                    del data[at : at + rng.randrange(8)]
                case 2:
                    data[at:at] = rng.randbytes(rng.randrange(8))
                case 3:
                    data[at:at] = rng.choice(seeds)[: rng.randrange(40)]
                case 4:
                    data[at:at] = rng.choice((b"null", b"-1", b"1e999", b'"\\ud800"', b"[[[[", b"{}", b"true", b"NaN"))
        yield bytes(data), rng.random() < 0.8
