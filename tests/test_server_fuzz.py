"""Uploads that nobody should send: mutated forms and recordings; no crash, no hang, nothing left behind.

`VERMILION_TEST_FUZZ=5000` sends as many as the benchmark's run did.
"""

import io
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import soundfile
from server_helpers import serving, tone, wav

from vermilion.server.options import Limits

COUNT = int(os.environ.get("VERMILION_TEST_FUZZ", "400"))
PATHS = ("/v1/audio/transcriptions", "/v1/audio/segments", "/v1/audio/events", "/v1/audio/languages")
LIMITS = Limits(upload_bytes=300_000, request_seconds=20, decode_seconds=10, requests=500, per_client=500)
KINDS = (("FLAC", None), ("OGG", "VORBIS"), ("MP3", None), ("AIFF", None), ("AU", "ULAW"), ("CAF", None))


def recordings():
    """Small files of several kinds."""
    found = [wav(tone(440, 0.3)), wav(np.stack([tone(440, 0.2)] * 2))]
    for kind, subtype in KINDS:
        file = io.BytesIO()
        soundfile.write(file, tone(440, 0.3).astype(np.float32), 16000, format=kind, subtype=subtype)
        found.append(file.getvalue())
    return found


def form(content, boundary=b"frontier"):
    fields = [b'model"\r\n\r\nvermilion', b'response_format"\r\n\r\nverbose_json']
    parts = [b"--" + boundary + b'\r\nContent-Disposition: form-data; name="' + field + b"\r\n" for field in fields]
    head = b'\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    return b"".join(parts) + b"--" + boundary + head + content + b"\r\n--" + boundary + b"--\r\n"


def mutated(rng, data):
    found = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(min(len(found), rng.choice((64, 400, 1 << 30))) + 1)
        match rng.randrange(6):
            case 0:
                found[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                found[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
            case 2:
                del found[at : at + rng.randrange(1, 200)]
            case 3:
                found[at:at] = rng.randbytes(rng.randrange(1, 100))
            case 4:
                found[at:at] = bytes(found[at : at + rng.randrange(1, 2000)])
            case 5:
                found = found[: at + 1]
    return bytes(found)


@pytest.mark.slow
def test_mutated_uploads_harm_nobody():
    rng, details = random.Random(17), {}
    files = recordings()
    with serving(limits=LIMITS, details=details) as url:

        def one(seed):
            own = random.Random(seed)
            content = own.choice(files)
            whole = own.random() < 0.5  # the form or the recording in it
            body = mutated(own, form(content)) if whole else form(mutated(own, content))
            kind = "multipart/form-data; boundary=frontier" if own.random() < 0.95 else mutated(own, b"multipart/form-data; boundary=x").decode("latin-1")  # fmt: skip  # noqa: E501
            headers = {"Content-Type": "".join(c for c in kind if " " < c < "\x7f") or "x"}
            return httpx.post(url + own.choice(PATHS), content=body, headers=headers, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(one, [rng.random() for _ in range(COUNT)]))
        codes = {a.status_code for a in answers}
        assert codes <= {200, 400, 404, 413, 415}, codes
        assert {200, 400} <= codes
        for answer in answers:
            if answer.status_code != 200:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
                assert str(details["data"]) not in answer.text
        good = httpx.post(f"{url}{PATHS[0]}", content=form(wav(tone(440))), headers={"Content-Type": "multipart/form-data; boundary=frontier"})  # fmt: skip  # noqa: E501
        assert good.json()["text"] == "Tone 440 hertz."
        desk = details["parts"].desk
        for _ in range(100):
            if not desk.admission.inside:
                break
            threading.Event().wait(0.05)
        assert desk.admission.inside == 0
        assert desk.engines.waiting_seconds == 0
        assert desk.engines.deaths == 0
        assert list(desk.spool.folder.iterdir()) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=\r\n\r\n",
    ],
)
def test_broken_http_is_refused(raw):
    import socket

    with serving() as url:
        host, port = url.partition("//")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(raw)
            line.shutdown(socket.SHUT_WR)
            answer = line.recv(65536)
            assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")) or b"404" in answer
        assert httpx.get(f"{url}/health").status_code == 200
