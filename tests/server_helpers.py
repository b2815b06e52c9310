"""Real servers with fake engines, on loopback."""

import asyncio
import contextlib
import io
import threading
import time
import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import uvicorn

from vermilion.server.app import create_app, create_server
from vermilion.server.options import ServerOptions
from vermilion.server.running import PatientProtocol, bind
from vermilion.testing import FakeModels

RATE = 16000


@contextlib.contextmanager
def serving(models=None, *, app_of=create_app, details=None, **options):
    """A server in a thread; gives its address. `details` (a dict) gets `parts`, `data`, `server`."""
    with TemporaryDirectory() as folder:
        options.setdefault("data", Path(folder))
        chosen = ServerOptions(models=models or FakeModels(), **options)
        listener = bind("127.0.0.1", 0)
        parts = create_server(chosen)
        config = uvicorn.Config(
            app_of(chosen, parts),
            http=PatientProtocol,
            log_config=None,
            lifespan="on",
            ws_max_size=16 << 20,
            server_header=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            wait_ready(url, thread)
            if details is not None:
                details.update(parts=parts, data=chosen.data, server=server, options=chosen)
            yield url
        finally:
            server.should_exit = True
            thread.join(20)
            listener.close()


def wait_ready(url, thread=None, seconds=60.0):
    for _ in range(int(seconds * 20)):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/ready", timeout=2).status_code == 200:
                return
        if thread is not None and not thread.is_alive():
            break
        threading.Event().wait(0.05)
    raise AssertionError("the server did not start")


def tone(hertz=440, seconds=1.0):
    """Float samples of a tone; the fake recogniser says its frequency."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


def tones(*hertz):
    """One second each, an answer each."""
    return np.concatenate([tone(h) for h in hertz])


def wav(samples, rate=RATE):
    """Bytes of a WAV file; (channels, samples) or (samples,)."""
    data = np.atleast_2d(samples)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(data))
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((data.T * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def is_emptied(folder, seconds=10.0):
    """Whether a folder becomes empty soon: a server tidies up after its last byte has reached the client."""
    end = time.monotonic() + seconds
    while any(folder.iterdir()) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(folder.iterdir())
