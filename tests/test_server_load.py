"""Under load: refusals that say when to come back, deadlines, limits while the upload streams, fair shares, drain."""

import asyncio
import contextlib
import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from server_helpers import serving, tone, wav

from vermilion.audio.isolation import Decoding, decode
from vermilion.errors import AudioError, AudioLimitError, VermilionError
from vermilion.server import running
from vermilion.server.admission import Admission
from vermilion.server.errors import Busy
from vermilion.server.options import Limits
from vermilion.server.uploads import Spool, most_bytes
from vermilion.testing import FakeModels

DATA = {"model": "whisper-1"}


def post(url, content, **more):
    return httpx.post(
        f"{url}/v1/audio/transcriptions", data=DATA, files={"file": ("a.wav", content)}, timeout=60, **more
    )


def many(url, count, content):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: post(url, content), range(count)))


@pytest.mark.slow
def test_too_many_requests_are_told_when_to_come_back():
    with serving(FakeModels(delay=0.3), limits=Limits(requests=3)) as url:
        found = many(url, 10, wav(tone(440, 3)))
    codes = [f.status_code for f in found]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= 3
    for refused in (f for f in found if f.status_code == 503):
        assert 1 <= int(refused.headers["retry-after"]) <= 600
        assert refused.json()["error"]["code"] == "overloaded"
    assert all(f.json()["text"].startswith("Tone 440 hertz") for f in found if f.status_code == 200)


def test_too_many_of_one_client():
    with serving(FakeModels(delay=0.3), limits=Limits(per_client=2)) as url:
        found = many(url, 6, wav(tone(440, 3)))
    assert {f.status_code for f in found} == {200, 429}
    refused = next(f for f in found if f.status_code == 429)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert "retry-after" in refused.headers


def test_too_much_audio_waits():
    with serving(FakeModels(delay=0.3), limits=Limits(backlog_seconds=5)) as url:
        found = many(url, 5, wav(tone(440, 3)))
    assert {f.status_code for f in found} == {200, 503}


def test_one_long_recording_is_let_in_where_nothing_waits():
    with serving(limits=Limits(backlog_seconds=5)) as url:
        assert post(url, wav(tone(440, 9))).status_code == 200


def test_a_deadline_is_kept_and_the_work_ends():
    details = {}
    with serving(FakeModels(delay=1.0), details=details, limits=Limits(deadline=1.0)) as url:
        began = time.monotonic()
        found = post(url, wav(tone(440, 30)))
        assert time.monotonic() - began < 5
        assert (found.status_code, found.json()["error"]["code"]) == (503, "deadline_exceeded")
        assert found.headers["x-should-retry"] == "false"
        assert details["parts"].desk.engines.waiting_seconds == 0


def test_a_stalled_upload_is_given_up():
    details = {}
    with serving(details=details, limits=Limits(stalled=0.5)) as url:
        host, port = url.partition("//")[2].split(":")
        with socket.create_connection((host, int(port))) as line:
            line.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
                b"Content-Type: multipart/form-data; boundary=xx\r\n\r\n--xx\r\nContent-Disposition: form-data; "
                b'name="file"; filename="a.wav"\r\n\r\nRIFF'
            )
            line.settimeout(10)
            answer = line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        desk = details["parts"].desk
        for _ in range(100):
            if not desk.admission.inside:
                break
            threading.Event().wait(0.02)
        assert list(desk.spool.folder.iterdir()) == []


def test_a_client_that_never_finishes_its_head_is_let_go(monkeypatch):
    monkeypatch.setattr(running, "HEAD_SECONDS", 0.5)
    with serving() as url:
        host, port = url.partition("//")[2].split(":")
        for said in (b"", b"GET /health HTTP/1.1\r\nHost: local"):
            with socket.create_connection((host, int(port)), timeout=10) as line:
                line.sendall(said)
                assert line.recv(100) == b""
        with httpx.Client() as client:  # one that does is not
            for _ in range(3):
                assert client.get(f"{url}/health").status_code == 200
                time.sleep(0.4)


def test_an_upload_that_is_cut_off_leaves_nothing():
    details = {}
    with serving(details=details) as url:
        host, port = url.partition("//")[2].split(":")
        for _ in range(5):
            with socket.create_connection((host, int(port))) as line:
                line.sendall(
                    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n"
                    b"Content-Type: multipart/form-data; boundary=xx\r\n\r\n--xx\r\nContent-Disposition: form-data; "
                    b'name="file"; filename="a.wav"\r\n\r\nRIFF' + b"\0" * 100_000
                )
                time.sleep(0.05)
        desk = details["parts"].desk
        for _ in range(100):
            if not desk.admission.inside and not list(desk.spool.folder.iterdir()):
                break
            threading.Event().wait(0.05)
        assert desk.admission.inside == 0
        assert list(desk.spool.folder.iterdir()) == []


def test_the_quota_of_temporary_files():
    with serving(limits=Limits(spool_bytes=1_000_000)) as url:
        found = post(url, wav(tone(440, 60)))
        assert (found.status_code, found.json()["error"]["code"]) == (503, "storage_full")
        assert "retry-after" in found.headers
        assert post(url, wav(tone(440, 3))).status_code == 200


def test_stopping_finishes_what_is_inside_and_lets_nobody_in():
    details = {}
    with serving(FakeModels(delay=0.5), details=details) as url, ThreadPoolExecutor(1) as pool:
        inside = pool.submit(post, url, wav(tone(440, 4)))
        desk = details["parts"].desk
        while not desk.admission.inside:
            time.sleep(0.01)
        desk.admission.draining = True
        assert httpx.get(f"{url}/ready").status_code == 503
        assert httpx.get(f"{url}/health").status_code == 200
        late = post(url, wav(tone(440)))
        assert (late.status_code, late.json()["error"]["code"]) == (503, "stopping")
        assert inside.result().status_code == 200
        desk.admission.draining = False  # so that the helper's own stop does its work


def test_retry_after_follows_the_measured_speed():
    speed = 2.0
    admission = Admission(Limits(requests=1), lambda: speed)
    with admission.enter("a"), admission.audio(100.0):
        with pytest.raises(Busy) as caught, admission.enter("b"):
            pass
        assert caught.value.retry_after == pytest.approx(25.0)
        assert admission.inside == 1
    assert admission.inside == 0
    assert admission.seconds == 0


# ---- decoding under limits


def decoding(tmp_path, content, **more):
    source = tmp_path / "in"
    source.write_bytes(content)
    return Decoding(source, tmp_path / "out", "in.wav", **more)


def test_decoding_gives_int16_at_16_khz(tmp_path):
    found = decode(decoding(tmp_path, wav(np.stack([tone(300), tone(600)])), channels="separate"))
    assert found.seconds == 1.0
    for path, hertz in zip(found.tracks, (300, 600), strict=True):
        spectrum = np.abs(np.fft.rfft(np.frombuffer(path.read_bytes(), "<i2")))
        assert spectrum.argmax() == hertz


def test_a_recording_that_is_too_long_leaves_nothing(tmp_path):
    with pytest.raises(AudioLimitError):
        decode(decoding(tmp_path, wav(tone(300, 20)), max_seconds=10))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def bomb():
    """A small FLAC file of an hour of silence."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(16000 * 3600, np.int16), 16000, format="FLAC")
    return file.getvalue()


def test_a_small_file_of_very_long_audio_costs_little(tmp_path):
    content = bomb()
    assert len(content) < 500_000
    assert most_bytes(content[:4096], 600) == 1  # refused by its header, before anything is decoded
    began = time.monotonic()
    with pytest.raises(AudioLimitError):
        decode(decoding(tmp_path, content, max_seconds=60))
    assert time.monotonic() - began < 20
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) == len(content)


def test_a_decoder_is_ended_when_it_needs_too_long_or_nobody_waits(tmp_path):
    work = decoding(tmp_path, wav(tone(300, 600)))
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(VermilionError):
        decode(work, stopped)
    with pytest.raises(AudioError):
        decode(Decoding(work.source, work.target, work.name, time=1e-9))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_decoder_without_memory_says_so(tmp_path):
    with pytest.raises(AudioError, match="memory"):
        decode(decoding(tmp_path, wav(tone(300, 600)), memory=1 << 20))


def test_the_spool_is_private_and_emptied_at_the_start(tmp_path):
    spool = Spool(tmp_path / "spool", 100)
    spool.prepare()
    path, file = spool.create()
    file.write(b"x" * 60)
    file.close()
    assert path.stat().st_mode & 0o077 == 0
    assert spool.folder.stat().st_mode & 0o077 == 0
    spool.check(40)
    with pytest.raises(Busy):
        spool.check(41)
    spool.prepare()
    assert spool.used() == 0


def test_the_server_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, vermilion.server.running, vermilion.server.app, vermilion.cli.serve;"
        "bad = {'torch', 'av', 'transformers', 'faster_whisper'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_attended_work_has_one_result(tmp_path):
    """Whatever happens first, nothing goes on afterwards."""
    from vermilion.server.admission import ClientLeft, attended
    from vermilion.server.errors import RequestError

    class Request:
        def __init__(self, gone):
            self.gone = gone

        async def receive(self):
            await asyncio.sleep(self.gone)
            return {"type": "http.disconnect"}

    async def work(seconds, log):
        try:
            await asyncio.sleep(seconds)
            return "done"
        finally:
            log.append("over")

    async def both():
        log = []
        assert await attended(Request(5), work(0.01, log), 5) == "done"
        with pytest.raises(ClientLeft):
            await attended(Request(0.01), work(5, log), 5)
        with pytest.raises(RequestError):
            await attended(Request(5), work(5, log), 0.01)
        with contextlib.suppress(asyncio.CancelledError):
            job = asyncio.ensure_future(attended(Request(5), work(5, log), 5))
            await asyncio.sleep(0.01)
            job.cancel()
            await job
        assert log == ["over"] * 4

    asyncio.run(both())
