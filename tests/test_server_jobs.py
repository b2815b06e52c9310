"""Jobs: stored, run, followed, cancelled, resumed after a kill, told by webhook."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from server_helpers import serving, tone, tones, wait_ready, wav

from vermilion.errors import OptionsError
from vermilion.server.jobs.store import STARTS, JobRow, JobStore, new_id
from vermilion.server.jobs.webhooks import Notifier, sign, verify
from vermilion.server.keys import KeyFile
from vermilion.server.options import Limits
from vermilion.testing import FakeModels
from vermilion.transcript import Transcript

DATABASES = ["sqlite"] + (["postgres"] if os.environ.get("VERMILION_TEST_POSTGRES") else [])
FILE = {"file": ("talk.wav", wav(tones(300, 400, 500)))}
TEXT = "Tone 300 hertz. Tone 400 hertz. Tone 500 hertz."


def submit(url, file=None, **data):
    found = httpx.post(f"{url}/v1/jobs", files=file or FILE, data=data)
    assert found.status_code == 202, found.text
    assert found.headers["location"] == f"/v1/jobs/{found.json()['id']}"
    return found.json()


def ended(url, id, seconds=30.0, **more):
    for _ in range(int(seconds * 20)):
        job = httpx.get(f"{url}/v1/jobs/{id}", **more).json()
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job}")


def follow(url, id):
    """(name, data) of every server-sent event."""
    with httpx.stream("GET", f"{url}/v1/jobs/{id}/events", timeout=30) as stream:
        name = None
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, details = tmp_path_factory.mktemp("recordings"), {}
    (folder / "inside.wav").write_bytes(wav(tone(600)))
    (folder / "secret.link").symlink_to("/etc/passwd")
    with serving(details=details, job_folders=(folder,), fetch_hosts=("127.0.0.1:1",)) as url:
        yield url, folder, details
        assert list(details["options"].uploads.iterdir()) == []


def test_a_job_from_upload_to_every_format(server):
    url = server[0]
    job = submit(url, language="en")
    assert job["object"] == "transcription.job"
    assert job["file"] == {"name": "talk.wav", "bytes": len(FILE["file"][1])}
    done = ended(url, job["id"])
    assert (done["status"], done["stage"], done["progress"], done["duration"]) == ("succeeded", "done", 1.0, 3.0)
    assert (done["segments_done"], done["segments_total"], done["position"]) == (3, 3, None)
    found = httpx.get(f"{url}/v1/jobs/{job['id']}/transcript").json()
    assert Transcript.from_dict(found).text == TEXT
    assert found["wav_path"] == "talk.wav"
    for form, start in (("srt", "1\n00:00:00,000"), ("vtt", "WEBVTT"), ("txt", "Tone 300"), ("TextGrid", "File type")):
        answer = httpx.get(f"{url}/v1/jobs/{job['id']}/transcript", params={"format": form})
        assert answer.text.startswith(start), form
        assert "charset=utf-8" in answer.headers["content-type"]
    assert httpx.get(f"{url}/v1/jobs/{job['id']}/transcript?format=docx").status_code == 400


def test_a_job_is_followed(server):
    url = server[0]
    job = submit(url)
    told = list(follow(url, job["id"]))
    assert told[-1][0] == "done"
    assert told[-1][1]["status"] == "succeeded"
    assert [name for name, _ in told].count("done") == 1
    shown = [s["text"] for name, data in told if name == "segment" for s in data["sentences"]]
    assert shown == sorted(set(shown), key=shown.index)
    assert list(follow(url, job["id"]))[0][0] == "done"  # afterwards, at once


def test_a_bad_recording_fails_its_own_job_only(server):
    url = server[0]
    bad, good = submit(url, {"file": ("x.wav", b"no audio")}), submit(url)
    failed = ended(url, bad["id"])
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "invalid_audio"
    assert "x.wav" in failed["error"]["message"]
    assert "/" not in failed["error"]["message"]
    missing = httpx.get(f"{url}/v1/jobs/{bad['id']}/transcript")
    assert (missing.status_code, missing.json()["error"]["code"]) == (409, "job_failed")
    assert ended(url, good["id"])["status"] == "succeeded"


def test_paths_only_under_allowed_folders(server):
    url, folder, _ = server
    job = httpx.post(f"{url}/v1/jobs", json={"path": str(folder / "inside.wav")})
    assert job.status_code == 202
    assert ended(url, job.json()["id"])["status"] == "succeeded"
    assert (folder / "inside.wav").exists()
    for path in (
        "/etc/passwd",
        f"{folder}/../../etc/passwd",
        f"{folder}/secret.link",
        str(folder),
        "inside.wav",
        f"{folder}/nothing.wav",
        "\0",
        "x" * 5000,
        "",
    ):
        assert httpx.post(f"{url}/v1/jobs", json={"path": path}).status_code == 403, path


def test_wrong_requests(server):
    url = server[0]
    for body in ({}, {"path": "a", "url": "b"}, {"path": 1}, [], "x", {"path": "/a", "channels": "five"}):
        assert httpx.post(f"{url}/v1/jobs", json=body).status_code in (400, 403), body
    assert httpx.post(f"{url}/v1/jobs", json={"url": "http://10.0.0.1/a.wav"}).status_code == 403
    assert httpx.post(f"{url}/v1/jobs", files=FILE, data={"webhook": "http://a.example/"}).status_code == 403
    assert httpx.post(f"{url}/v1/jobs", files=FILE, data={"language": "klingon"}).status_code == 400
    assert httpx.post(f"{url}/v1/jobs", files=FILE, data={"channels": "five"}).status_code == 400
    assert httpx.post(f"{url}/v1/jobs", files={"other": b"x"}).status_code == 400
    assert httpx.get(f"{url}/v1/jobs/job_nothing").status_code == 404
    assert httpx.delete(f"{url}/v1/jobs/%00").status_code == 404
    assert httpx.get(f"{url}/v1/jobs?limit=0").status_code == 400


def test_a_url_that_cannot_be_fetched_fails_the_job(server):
    url = server[0]
    job = httpx.post(f"{url}/v1/jobs", json={"url": "http://127.0.0.1:1/a.wav"}).json()
    assert ended(url, job["id"])["error"]["code"] == "fetch_failed"


def test_jobs_are_listed_and_deleted(server):
    url = server[0]
    ids = [submit(url)["id"] for _ in range(5)]
    for id in ids:
        ended(url, id)
    first = httpx.get(f"{url}/v1/jobs?limit=3").json()
    assert [j["id"] for j in first["data"]] == ids[:1:-1]
    assert first["has_more"]
    more = httpx.get(f"{url}/v1/jobs", params={"limit": 2, "after": first["data"][-1]["id"]}).json()
    assert [j["id"] for j in more["data"]] == [ids[1], ids[0]]
    assert httpx.delete(f"{url}/v1/jobs/{ids[0]}").json()["status"] == "succeeded"
    assert httpx.get(f"{url}/v1/jobs/{ids[0]}").status_code == 404
    assert {j["status"] for j in httpx.get(f"{url}/v1/jobs?status=succeeded").json()["data"]} == {"succeeded"}


def test_the_same_key_is_the_same_job(server):
    url = server[0]
    head = {"Idempotency-Key": "upload 17"}
    found = [httpx.post(f"{url}/v1/jobs", files=FILE, headers=head).json()["id"] for _ in range(3)]
    assert len(set(found)) == 1
    ended(url, found[0])


@pytest.mark.slow
def test_jobs_are_cancelled_while_they_wait_and_while_they_run():
    details = {}
    with serving(FakeModels(delay=0.3), details=details, limits=Limits(jobs_at_once=1)) as url:
        long = {"file": ("long.wav", wav(np.tile(tone(440), 60)))}
        running, waiting = submit(url, long), submit(url, long)
        while httpx.get(f"{url}/v1/jobs/{running['id']}").json()["stage"] != "asr":
            time.sleep(0.05)
        assert httpx.get(f"{url}/v1/jobs/{waiting['id']}").json()["status"] == "queued"
        for id in (waiting["id"], running["id"]):
            assert httpx.delete(f"{url}/v1/jobs/{id}").json()["status"] == "cancelled"
        assert ended(url, submit(url)["id"])["status"] == "succeeded"
        assert details["parts"].desk.engines.waiting_seconds == 0
        assert list(details["options"].uploads.iterdir()) == []
        assert list(details["options"].spool.iterdir()) == []


def test_too_many_jobs():
    with serving(FakeModels(delay=1.0), limits=Limits(jobs=2, jobs_at_once=1)) as url:
        codes = [httpx.post(f"{url}/v1/jobs", files=FILE).status_code for _ in range(6)]
        assert codes[0] == 202
        assert codes[-1] == 503


def test_jobs_of_other_keys_are_invisible(tmp_path):
    path = tmp_path / "keys.json"
    one, two = ({"Authorization": f"Bearer {KeyFile(path).add(name)}"} for name in ("one", "two"))
    with serving(keys=path) as url:
        job = httpx.post(f"{url}/v1/jobs", files=FILE, headers=one).json()["id"]
        ended(url, job, headers=one)
        for what in ("", "/events", "/transcript"):
            assert httpx.get(f"{url}/v1/jobs/{job}{what}", headers=two).status_code == 404
        assert httpx.delete(f"{url}/v1/jobs/{job}", headers=two).status_code == 404
        assert httpx.get(f"{url}/v1/jobs", headers=two).json()["data"] == []
        assert len(httpx.get(f"{url}/v1/jobs", headers=one).json()["data"]) == 1


@pytest.mark.slow
def test_a_stopped_server_goes_on_where_it_was(tmp_path):
    """Segments that were finished before are not done again: their count never falls."""
    content = {"file": ("long.wav", wav(tones(*range(300, 3300, 100))))}
    with serving(FakeModels(delay=0.3), data=tmp_path) as url:
        job = submit(url, content)["id"]
        while (before := httpx.get(f"{url}/v1/jobs/{job}").json()["segments_done"]) < 10:
            time.sleep(0.02)
    with serving(FakeModels(delay=0.1), data=tmp_path) as url:
        told = list(follow(url, job))
        assert ended(url, job)["status"] == "succeeded"
        text = httpx.get(f"{url}/v1/jobs/{job}/transcript").json()["text"]
    assert text == " ".join(f"Tone {h} hertz." for h in range(300, 3300, 100))
    counts = [data["segments_done"] for name, data in told if name == "progress"]
    assert min(counts) >= before
    new = [s["text"] for name, data in told[1:] if name == "segment" for s in data["sentences"]]
    assert len(new) <= 30 - before


def test_a_second_server_does_not_share_a_file(tmp_path):
    with serving(data=tmp_path), pytest.raises(OptionsError, match="another server"):
        JobStore(f"sqlite:///{tmp_path}/jobs.sqlite").open()


SERVER = """
import sys
from pathlib import Path
from vermilion.server.options import ServerOptions
from vermilion.server.running import serve
from vermilion.testing import FakeModels
serve(ServerOptions(models=FakeModels(delay=0.02), port=int(sys.argv[1]), data=Path(sys.argv[2])))
"""


@contextlib.contextmanager
def process(port, folder):
    """A server that can be killed like a real one."""
    command = [sys.executable, "-c", SERVER, str(port), str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_ready(url)
            yield url, server
        finally:
            server.kill()


def free_port():
    import socket

    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return line.getsockname()[1]


KILLS = int(os.environ.get("VERMILION_TEST_KILLS", "4"))


@pytest.mark.slow
def test_a_killed_server_loses_and_repeats_nothing(tmp_path):
    """`VERMILION_TEST_KILLS=20` kills it as often as the benchmark does."""
    port, rng = free_port(), np.random.default_rng(7)
    wanted, lost = {}, 0
    for kill in range(KILLS):
        with process(port, tmp_path) as (url, server):
            timer = threading.Timer(float(rng.uniform(0.05, 1.5)), server.kill)
            timer.start()
            for i in range(6):
                pitches = [int(h) for h in rng.integers(3, 60, size=int(rng.integers(1, 12))) * 100]
                try:
                    job = submit(url, {"file": (f"{kill}-{i}.wav", wav(tones(*pitches)))})
                except httpx.HTTPError:
                    lost += 1  # the client was never told that it was accepted
                    break
                wanted[job["id"]] = (f"{kill}-{i}.wav", " ".join(f"Tone {h} hertz." for h in pitches))
            timer.join()
            server.wait()
    with process(port, tmp_path) as (url, _):
        for id, (name, text) in wanted.items():
            job = ended(url, id, seconds=60)
            assert (job["status"], job["file"]["name"]) == ("succeeded", name)
            found = httpx.get(f"{url}/v1/jobs/{id}/transcript").json()
            assert found["text"] == text
            assert len(found["sentences"]) == job["segments_total"] == text.count(".")
        known, after = [], None
        while True:
            page = httpx.get(f"{url}/v1/jobs", params={"limit": 100, **({"after": after} if after else {})}).json()
            known += [j["id"] for j in page["data"]]
            if not page["has_more"]:
                break
            after = known[-1]
        assert set(wanted) <= set(known)
        assert len(set(known)) == len(known) <= len(wanted) + lost
        for id in set(known) - set(wanted):
            ended(url, id)
        assert list((tmp_path / "uploads").iterdir()) == []
        assert list((tmp_path / "spool").iterdir()) == []
    assert len(wanted) >= KILLS // 2


@pytest.mark.slow
def test_sigterm_ends_the_server_in_order(tmp_path):
    with process(free_port(), tmp_path) as (url, server):
        job = submit(url, {"file": ("a.wav", wav(np.tile(tone(440), 400)))})["id"]
        time.sleep(0.5)
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert time.monotonic() - began < 10
    store = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")
    store.open()
    row = store.get(job)
    store.close()
    assert (row.status, row.owner) == ("queued", None)


# ---- the store alone


@pytest.fixture(params=DATABASES)
def store(request, tmp_path):
    now = [1000.0]
    url = f"sqlite:///{tmp_path}/jobs.sqlite" if request.param == "sqlite" else os.environ["VERMILION_TEST_POSTGRES"]
    found = JobStore(url, lambda: now[0])
    found.open()
    with found._engine.begin() as connection:
        for table in ("deliveries", "segments", "jobs"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    found.now = now
    yield found
    found.close()


def row(client="", **more):
    return JobRow(new_id(), client, "a.wav", "upload", "/nowhere", **more)


def state(start, end, channel=None):
    return {"channel": channel, "start": start, "end": end, "text": "x"}


def test_two_servers_never_have_the_same_job(store):
    rows = [store.add(row(created_at=float(i)), 1000) for i in range(40)]
    got, lock = [], threading.Lock()

    def work(name):
        while (found := store.claim(name, 60)) is not None:
            with lock:
                got.append(found.id)

    threads = [threading.Thread(target=work, args=(f"s{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(r.id for r in rows)


def test_clients_take_turns(store):
    for i in range(4):
        store.add(row("greedy", created_at=float(i)), 100)
    store.add(row("modest", created_at=10.0), 100)
    assert [store.claim("s", 60).client for _ in range(3)] == ["greedy", "modest", "greedy"]


def test_leases_expire_and_late_answers_do_not_count(store):
    job = store.add(row(), 10)
    assert store.claim("one", 60).id == job.id
    assert store.requeue() == 0
    store.now[0] += 50
    store.renew("one", 60)
    store.now[0] += 50
    assert store.requeue() == 0
    store.now[0] += 50
    assert store.requeue() == 1
    assert store.claim("two", 60).id == job.id
    assert store.advance(job.id, "one", [state(0, 1)], progress=0.5) is None
    assert store.finish(job.id, "one", "succeeded", "{}", None) is None
    assert store.finish(job.id, "two", "succeeded", '{"a": 1}', None).status == "succeeded"
    assert store.result(job.id) == '{"a": 1}'
    assert store.finish(job.id, "two", "failed", None, None) is None


def test_segments_are_kept_once(store):
    job = store.add(row(), 10)
    store.claim("s", 60)
    assert store.advance(job.id, "s", [state(1, 2), state(0, 1)], progress=0.1).segments_done == 2
    assert store.advance(job.id, "s", [state(1, 2), state(1, 2, 1)], progress=0.2).segments_done == 3
    assert [s["start"] for s in store.segments(job.id)] == [0, 1, 1]
    store.finish(job.id, "s", "succeeded", "{}", None)
    assert store.segments(job.id) == []


def test_a_job_that_always_ends_the_server_is_given_up(store):
    job = store.add(row(), 10)
    for _ in range(STARTS):
        assert store.claim("s", 60).id == job.id
        store.requeue(all_running=True)
    assert store.claim("s", 60) is None
    assert store.get(job.id).status == "failed"


def test_limits_positions_cancelling_and_purging(store):
    one, two = store.add(row(created_at=1.0), 2), store.add(row(created_at=2.0), 2)
    assert store.add(row(), 2) is None
    assert (store.position(one), store.position(two)) == (0, 1)
    assert store.cancel(one.id).status == "cancelled"
    assert store.cancel(one.id) is None
    assert store.counts() == {"cancelled": 1, "queued": 1}
    store.now[0] += 100
    assert [r.id for r in store.purge(store.now[0] - 50)] == [one.id]
    assert store.get(one.id) is None
    again = replace(row(), same="k")
    assert store.add(again, 9).id == store.add(replace(row(), same="k"), 9).id == again.id
    assert store.add(replace(row("other"), same="k"), 9).id != again.id


def test_unknown_databases_are_refused(tmp_path):
    with pytest.raises(OptionsError):
        JobStore("mysql://x")
    with pytest.raises(OptionsError, match="cannot be opened"):
        JobStore("postgresql://nobody@127.0.0.1:1/nothing").open()


# ---- webhooks


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers.items()), body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def hook(*answers):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.got, server.answers = [], list(answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server, f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_webhook_is_signed_and_tells_no_text(monkeypatch):
    monkeypatch.setenv("VERMILION_WEBHOOK_SECRET", "whsec_c2VjcmV0IHNhdWNl")
    with hook() as (receiver, host), serving(webhook_hosts=(host,)) as url:
        job = submit(url, webhook=f"http://{host}/done")
        ended(url, job["id"])
        for _ in range(100):
            if receiver.got:
                break
            time.sleep(0.05)
        headers, body = receiver.got[0]
        headers = {name.lower(): value for name, value in headers.items()}
        assert verify(b"secret sauce", headers, body)
        assert not verify(b"another", headers, body)
        assert not verify(b"secret sauce", headers, body + b" ")
        assert not verify(b"secret sauce", headers, body, now=time.time() + 600)
        told = json.loads(body)
        assert (told["type"], told["data"]["id"]) == ("job.succeeded", job["id"])
        assert b"hertz" not in body


def test_a_webhook_is_sent_again_until_it_arrives(store):
    async def work(host):
        notifier = Notifier(store, (host,), delays=(5.0, 30.0))
        for expected in (1, 2, 3):
            await notifier.send_due()
            assert len(receiver.got) == expected
            await notifier.send_due()  # not yet
            store.now[0] += 60
        assert await notifier.send_due() == 0

    with hook(500, 302) as (receiver, host):
        job = store.add(row(webhook=f"http://{host}/x"), 10)
        store.claim("s", 60)
        store.finish(job.id, "s", "failed", None, '{"message": "m"}')
        asyncio.run(work(host))
        assert len({dict(headers)["webhook-id"] for headers, _ in receiver.got}) == 1


def test_a_webhook_gives_up_at_last(store):
    async def work(host):
        notifier = Notifier(store, ("other.example",), delays=(1.0,))
        for _ in range(2):
            assert await notifier.send_due() == 1
            store.now[0] += 100
        assert await notifier.send_due() == 0

    with hook() as (receiver, host):
        job = store.add(row(webhook=f"http://{host}/x"), 10)
        store.cancel(job.id)
        asyncio.run(work(host))
        assert receiver.got == []


def test_the_signature_is_that_of_standard_webhooks():
    """The example of the specification's reference libraries."""
    import base64

    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert (
        sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )
