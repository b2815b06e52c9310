"""What one client cannot take from the others: heads, sockets, threads, engines; and codes that say what is so."""

import asyncio
import base64
import contextlib
import json
import logging
import os
import socket
import stat
import threading
import time

import httpx
import numpy as np
import pytest
import websockets.sync.client
from server_helpers import serving, tone, tones, wav
from websockets.exceptions import InvalidStatus

from vermilion.errors import Cancelled, OptionsError
from vermilion.pipeline import Pipeline
from vermilion.server import running
from vermilion.server.admission import Admission, Admitted, Buffer
from vermilion.server.app import create_server
from vermilion.server.errors import Busy
from vermilion.server.jobs.store import JobRow, JobStore, new_id
from vermilion.server.options import Limits, ServerOptions
from vermilion.server.running import HEAD_BYTES
from vermilion.testing import FakeDetector, FakeModels, SlowDetector

SECRET = "a sentence that nobody else should read"


@pytest.fixture(scope="module")
def url():
    with serving() as found:
        yield found


def talk(url, data, last=b"never"):
    """Send bytes; what comes back until these last ones, or until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while last not in answer and (part := connection.recv(1 << 16)):
                answer += part
    return answer


def head(size, end=b"\r\n\r\n"):
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-n: "
    return start + b"y" * (size - len(start) - len(end)) + end


# ---- heads


@pytest.mark.parametrize("data", [head(HEAD_BYTES + 1), head(HEAD_BYTES + 1, b""), b"G" * (HEAD_BYTES + 1)])
def test_a_head_is_no_larger_than_it_may_be(url, data):
    answer = talk(url, data)
    assert b"200 OK" not in answer
    if data[:4] == b"GET ":
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "head_too_large"


def test_a_long_head_and_a_longer_body_are_served(url):
    assert talk(url, head(HEAD_BYTES)).startswith(b"HTTP/1.1 200 ")
    with httpx.Client() as client:  # several on one connection
        for _ in range(3):
            files = {"file": ("a.wav", wav(tone(440, 5)))}  # 160 kB
            found = client.post(f"{url}/v1/audio/segments", files=files, headers={"x-n": "y" * 60_000})
            assert found.status_code == 200


# ---- sockets


def connect(url, path="/v1/realtime"):
    return websockets.sync.client.connect(url.replace("http", "ws") + path)


def say(connection, **event):
    connection.send(json.dumps(event))


def test_sockets_are_counted():
    for limits, status in ((Limits(sockets=1), 503), (Limits(per_client=1), 429)):
        with serving(limits=limits) as url:
            with connect(url) as first:
                assert json.loads(first.recv(10))["type"] == "session.created"
                with pytest.raises(InvalidStatus) as caught:
                    connect(url, "/v1/live")
                assert caught.value.response.status_code == status
                assert "retry-after" in caught.value.response.headers
            for _ in range(200):  # the first has gone
                with contextlib.suppress(InvalidStatus), connect(url) as second:
                    assert json.loads(second.recv(10))["type"] == "session.created"
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("no room although the first has gone")


def test_audio_that_sockets_hold_is_counted():
    details = {}
    with serving(limits=Limits(socket_bytes=200_000), details=details) as url:
        admission = details["parts"].desk.admission
        audio = base64.b64encode(bytes(150_000)).decode()
        with connect(url) as one, connect(url) as two:
            for connection in (one, two):
                say(connection, type="session.update", session={"audio": {"input": {"turn_detection": None}}})
                assert [json.loads(connection.recv(10))["type"] for _ in range(2)][1] == "session.updated"
            say(one, type="input_audio_buffer.append", audio=audio)
            say(one, type="input_audio_buffer.append", audio=audio)
            assert json.loads(one.recv(10))["error"]["code"] == "overloaded"
            say(two, type="input_audio_buffer.append", audio=audio)
            assert json.loads(two.recv(10))["error"]["code"] == "overloaded"
            assert admission.held == 150_000
            say(one, type="input_audio_buffer.clear")
            assert json.loads(one.recv(10))["type"] == "input_audio_buffer.cleared"
            say(two, type="input_audio_buffer.append", audio=audio)
            say(two, type="input_audio_buffer.commit")
            assert json.loads(two.recv(10))["type"] == "input_audio_buffer.committed"
            assert admission.held == 0


def test_utterances_of_sockets_wait_among_the_other_requests():
    admission = Admission(Limits(backlog_seconds=10), lambda: 1.0)

    class Engines:
        async def transcribe_samples(self, pcm, rate, language):
            return admission.seconds

    backend = Admitted(Engines(), admission)
    assert asyncio.run(backend.transcribe_samples(bytes(32000), 16000)) == 1
    with admission.audio(9.5), pytest.raises(Busy, match="waiting already"):
        asyncio.run(backend.transcribe_samples(bytes(32000), 16000))
    assert admission.seconds == 0


def test_a_buffer_gives_back_what_it_held():
    admission = Admission(Limits(socket_bytes=10), lambda: 1.0)
    one, two = Buffer(admission), Buffer(admission)
    one.add(b"12345678")
    with pytest.raises(Busy):
        two.add(b"123")
    assert (len(two), one.take(), len(one), admission.held) == (0, b"12345678", 0, 0)
    two.add(b"123")
    two.clear()
    assert admission.held == 0


# ---- threads


def test_decoders_do_not_stop_the_list_of_jobs(monkeypatch):
    """Recordings that take long to decode: as many jobs and requests as there may be."""
    release, begun = threading.Event(), threading.Semaphore(0)
    from vermilion.audio.isolation import decode

    def slow(work, stopped=None):
        begun.release()
        release.wait(60)
        return decode(work, stopped)

    for module in ("work", "jobs.runner"):
        monkeypatch.setattr(f"vermilion.server.{module}.decode", slow)
    files = {"file": ("a.wav", wav(tone(440)))}
    details = {}
    with serving(limits=Limits(jobs_at_once=3), details=details) as url:
        jobs = [httpx.post(f"{url}/v1/jobs", files=files).json()["id"] for _ in range(3)]
        waiting = [
            threading.Thread(target=lambda: httpx.post(f"{url}/v1/audio/segments", files=files, timeout=60))
            for _ in range(details["options"].limits.per_client - 2)
        ]
        for thread in waiting:
            thread.start()
        for _ in range(4):
            assert begun.acquire(timeout=30)
        try:
            assert {job["id"] for job in httpx.get(f"{url}/v1/jobs", timeout=30).json()["data"]} == set(jobs)
            assert httpx.get(f"{url}/metrics", timeout=30).status_code == 200
            renewed = details["parts"].runner.ask(lambda: "answered")
            assert asyncio.run(renewed) == "answered"
        finally:
            release.set()
        for thread in waiting:
            thread.join(60)
        for id in jobs:
            while httpx.get(f"{url}/v1/jobs/{id}").json()["status"] not in ("succeeded", "failed"):
                time.sleep(0.05)


# ---- detectors


def test_segmentation_ends_when_nobody_waits():
    pipeline = FakeModels(detect_delay=0.001)().pipeline
    seen = []

    def watch(done, total):
        seen.append((done, total))
        if done >= 3:
            raise Cancelled

    from vermilion.server.backend import Task
    from vermilion.server.worker import recordings_of

    recordings = recordings_of(Task([], "a.wav"), [(tones(300, 400, 500, 600) * 32767).astype(np.int16)])
    with pytest.raises(Cancelled):
        pipeline.segment("a.wav", recordings, progress=watch)
    assert seen == [(1, 8), (2, 8), (3, 8)]  # of voice activity and events


def test_detectors_of_others_need_not_tell():
    class Silent(FakeDetector):
        def detect(self, audio, /):
            return super().detect(audio)

    from vermilion.server.backend import Task
    from vermilion.server.worker import recordings_of

    seen = []
    recordings = recordings_of(Task([], "a.wav"), [(tones(300, 400) * 32767).astype(np.int16)])
    job = Pipeline(Silent(), None, None, None).segment("a", recordings, progress=lambda *step: seen.append(step))
    assert (len(job.units), seen) == (2, [(2.0, 2.0)])


@pytest.mark.parametrize("path", ["transcriptions", "segments", "languages"])
def test_a_client_that_leaves_during_voice_activity_ends_its_work(path):
    """The next long recording need not wait for it: that would take more than ten minutes."""
    with serving(FakeModels(detect_delay=1.0)) as url:
        files = {"file": ("long.wav", wav(np.zeros((1, 16000 * 700))))}
        data = {"model": "whisper-1"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/audio/{path}", files=files, data=data, timeout=httpx.Timeout(60, read=3))
        job = httpx.post(f"{url}/v1/jobs", files=files, timeout=60).json()["id"]
        seen = []
        for _ in range(600):
            now = httpx.get(f"{url}/v1/jobs/{job}").json()
            seen.append(now["progress"])
            if now["progress"] > 0:
                break
            time.sleep(0.05)
        assert (now["stage"], now["segments_total"]) == ("vad", None)
        assert 0 < now["progress"] < 0.1
        assert httpx.delete(f"{url}/v1/jobs/{job}").json()["status"] == "cancelled"


def test_a_job_does_not_look_for_speech_again(tmp_path):
    content = {"file": ("long.wav", wav(tones(*range(300, 1500, 100))))}
    with serving(FakeModels(delay=0.3), data=tmp_path) as url:
        job = httpx.post(f"{url}/v1/jobs", files=content).json()["id"]
        while (before := httpx.get(f"{url}/v1/jobs/{job}").json())["segments_done"] < 1:
            time.sleep(0.02)
    details = {}
    with serving(FakeModels(detect_delay=1000.0), data=tmp_path, details=details) as url:
        seen = []
        while (now := httpx.get(f"{url}/v1/jobs/{job}").json())["status"] not in ("succeeded", "failed"):
            seen.append(now["progress"])
            time.sleep(0.02)
        assert now["status"] == "succeeded"
        assert min([*seen, 1.0]) >= before["progress"] > 0.1
        transcript = httpx.get(f"{url}/v1/jobs/{job}/transcript").json()
        assert transcript["text"] == " ".join(f"Tone {h} hertz." for h in range(300, 1500, 100))
        assert [event["label"] for event in transcript["events"]] == ["music"]
        assert details["parts"].runner.store.segmentation(job) is None  # nobody needs it any more


# ---- the store


@pytest.fixture
def store(tmp_path):
    found = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")
    found.open()
    yield found
    found.close()


def added(store):
    return store.add(JobRow(new_id(), "", "a.wav", "path", "/x"), 10)


def test_progress_never_falls(store):
    job = added(store)
    store.claim("s", 60)
    shares = [store.advance(job.id, "s", [], progress=p).progress for p in (0.1, 0.5, 0.2, 0.6)]
    assert shares == [0.1, 0.5, 0.5, 0.6]
    store.release(job.id, "s")
    assert store.claim("s", 60).progress == 0.6


def test_a_claim_that_lapsed_is_not_the_next_one_of_the_same_server(store):
    job = added(store)
    old = store.claim("server.1", 60)
    store.renew("server", 60)
    store.requeue(all_running=True)
    new = store.claim("server.2", 60)
    assert (old.id, new.id) == (job.id, job.id)
    assert store.advance(job.id, old.owner, [], progress=0.5) is None
    assert store.finish(job.id, old.owner, "succeeded", "{}", None) is None
    store.release(job.id, old.owner)
    assert store.get(job.id).status == "running"
    assert store.finish(job.id, new.owner, "succeeded", "{}", None).status == "succeeded"


def test_a_server_renews_its_own_claims_only(store):
    store.clock = lambda: now
    now = 1000.0
    ours, theirs = added(store), added(store)
    claims = [store.claim(owner, 60) for owner in ("a.1", "ab.1")]
    now += 50
    store.renew("a", 60)
    now += 50
    assert store.requeue() == 1
    assert [store.get(c.id).status for c in claims] == ["running", "queued"]
    assert {ours.id, theirs.id} == {c.id for c in claims}


def test_only_the_server_reads_its_jobs_and_what_is_deleted_is_gone(tmp_path):
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"")
    path.chmod(0o644)  # of an older version
    before = os.umask(0o022)
    try:
        store = JobStore(f"sqlite:///{path}")
        store.open()
        job = added(store)
        store.claim("s", 60)
        store.finish(job.id, "s", "succeeded", json.dumps({"text": SECRET}), None)
        files = sorted(tmp_path.glob("jobs.sqlite*"))
        assert len(files) >= 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert any(SECRET.encode() in file.read_bytes() for file in files)
        store.delete(job.id)
        assert not any(SECRET.encode() in file.read_bytes() for file in files if file.exists())
        store.close()
    finally:
        os.umask(before)


# ---- codes and words


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/v1/models", "/openapi.json", "/page/app.js", "/metrics"])
def test_head_is_get_without_the_body(url, path):
    found, whole = httpx.head(url + path), httpx.get(url + path)
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "field", "status", "code"),
    [
        ("audio/transcriptions", "model", 404, "model_not_found"),
        ("audio/transcriptions", "response_format", 400, "invalid_value"),
        ("audio/transcriptions", "language", 400, "unsupported_language"),
        ("jobs", "language", 400, "unsupported_language"),
    ],
)
def test_a_wrong_name_does_not_cost_an_upload(url, path, field, status, code):
    """The client has sent the name, and the server answers although the recording has not come."""
    form = (
        f'--x\r\ncontent-disposition: form-data; name="{field}"\r\n\r\nwrong!\r\n'.encode()
        + b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )
    request = (
        f"POST /v1/{path} HTTP/1.1\r\n".encode() + b"Host: localhost\r\ncontent-length: 1000000000\r\n"
        b"content-type: multipart/form-data; boundary=x\r\n\r\n"
    )
    answer = talk(url, request + form, b"}}")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert code.encode() in answer


@pytest.mark.parametrize(("form", "status"), [("srt", 400), ("vtt", 400), ("verbose_json", 200), ("text", 200)])
def test_a_stream_is_not_a_file_of_subtitles(url, form, status):
    data = {"model": "whisper-1", "stream": "true", "response_format": form}
    found = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": ("a.wav", wav(tone(440)))}, data=data)
    assert found.status_code == status
    if status == 400:
        assert (found.json()["error"]["param"], form in found.json()["error"]["message"]) == ("stream", True)


class OnlyRecognition:
    def __call__(self):
        from vermilion.server.worker import Models

        return Models(Pipeline(SlowDetector(), None, FakeModels()().pipeline.recognizer, None))


def test_a_model_that_is_not_there_is_not_a_fault_that_passes():
    with serving(OnlyRecognition()) as url:
        files = {"file": ("a.wav", wav(tone(440)))}
        answers = [httpx.post(f"{url}/v1/audio/{name}", files=files) for name in ("events", "languages")]
        answers.append(httpx.post(f"{url}/v1/audio/punctuate", json={"text": "hello"}))
        for found in answers:
            assert (found.status_code, found.json()["error"]["code"]) == (501, "not_available")
            assert found.headers["x-should-retry"] == "false"
        assert httpx.post(f"{url}/v1/audio/segments", files=files).status_code == 200


def test_a_job_that_is_too_long_is_not_told_to_become_a_job():
    with serving(limits=Limits(audio_seconds=2, request_seconds=1)) as url:
        files = {"file": ("a.wav", wav(tone(440, 30)))}
        job = httpx.post(f"{url}/v1/jobs", files=files).json()["error"]
        request = httpx.post(f"{url}/v1/audio/segments", files=files).json()["error"]
    assert (job["code"], request["code"]) == ("audio_too_long", "audio_too_long")
    assert "parts" in job["message"]
    assert "job" not in job["message"]
    assert "as a job" in request["message"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x", encoding="ascii")
    with pytest.raises(OptionsError, match="--data"):
        create_server(ServerOptions(models=FakeModels(), data=tmp_path / "file" / "inside"))


def test_addresses_are_taken_before_the_models_are_loaded(tmp_path):
    def never():
        raise AssertionError("the models were loaded")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("wyoming", "funasr"):
            options = ServerOptions(models=never, port=0, data=tmp_path, **{f"{name}_port": port})
            with pytest.raises(OptionsError, match=f"port {port}.*--{name}-port"):
                asyncio.run(running._serve(options, running.Running()))


def test_a_proxy_before_a_server_without_keys_is_warned_of_once(caplog):
    with serving() as url, caplog.at_level(logging.WARNING, "vermilion.access"):
        for _ in range(2):
            httpx.get(f"{url}/health", headers={"x-forwarded-for": "203.0.113.9"})
        assert len([r for r in caplog.records if "vermilion keys add" in r.message]) == 1
