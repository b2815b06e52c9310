"""Engines on Ray Serve: the answers of the engines of this machine, through the real server."""

import asyncio
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import websockets.sync.client
from server_helpers import serving, tone, tones, wav

from vermilion.cluster.ray_serve import ReplicaOptions, on_ray_serve
from vermilion.errors import MissingDependencyError, ModelError, OptionsError
from vermilion.pipeline import PipelineOptions
from vermilion.server.backend import Task
from vermilion.server.errors import RequestError
from vermilion.testing import FakeModels, SlowRecognizer, pitch

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray", reason="Ray is not installed")
serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed")
PATHS = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")])
SLOW, BROKEN = 3000, 3500
"""tones that take half a second a batch, and that a batch fails at"""


@dataclass
class Noting(SlowRecognizer):
    """Writes down the sizes of its batches."""

    notes: str = ""

    def recognize(self, recordings, options=None, /):
        pitches = [pitch(samples) for samples, _ in recordings]
        with Path(self.notes).open("a") as file:
            file.write(json.dumps(pitches) + "\n")
        if f"tone {SLOW} hertz" in pitches:
            time.sleep(0.5)
        return super().recognize(recordings, options)


def fragile(advance):
    """An `advance` in which a batch fails as a whole."""

    def work(units):
        if any(pitch(unit.audio()[0]) == f"tone {BROKEN} hertz" for unit in units):
            raise SystemError("a fault that nobody expects")
        advance(units)

    return work


@dataclass(frozen=True)
class NotingModels(FakeModels):
    """The fakes, and a file of what they did."""

    notes: str = ""
    options: PipelineOptions = field(default_factory=lambda: PipelineOptions(batch_seconds=4.0))

    def __call__(self):
        models = super().__call__()
        models.pipeline.recognizer = Noting(notes=self.notes)
        models.pipeline.advance = fragile(models.pipeline.advance)
        return models


@pytest.fixture(scope="module")
def both():
    """A server of each kind, with the same models; addresses, the engines on Serve, and their notes."""
    with tempfile.TemporaryDirectory(prefix="vs") as folder, pytest.MonkeyPatch.context() as patch:
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=150 << 20,
            _node_ip_address="127.0.0.1", _temp_dir=folder, runtime_env={"env_vars": {"PYTHONPATH": PATHS}},
        )  # fmt: skip
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # what `on_ray_serve` sets ends with the module
        notes, details = Path(folder) / "notes", {}
        engines = on_ray_serve(ReplicaOptions(replicas=(1, 2), cpus=0.5, batch=4, wait=0.2))
        try:
            with (
                serving(NotingModels(notes=str(Path(folder) / "others"))) as local,
                serving(NotingModels(notes=str(notes)), engines=engines, details=details) as there,
            ):
                yield local, there, details["parts"].desk.engines, notes
            assert serve.status().applications == {}  # the server took its application with it
        finally:
            serve.shutdown()
            ray.shutdown()


def post(url, path, samples=None, **more):
    files = {"file": ("talk.wav", wav(samples), "audio/wav")} if samples is not None else None
    return httpx.post(f"{url}/v1/audio/{path}", files=files, timeout=60, **more)


def task(folder, samples, seconds=1.0):
    path = folder / f"{time.monotonic_ns()}.pcm"
    (np.asarray(samples) * 32767).astype("<i2").tofile(path)
    return Task([path], "talk.wav", seconds=seconds)


def noted(notes):
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("transcriptions", {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}),
        ("transcriptions", {"response_format": "json", "stream": "true"}),
        ("segments", {}),
        ("events", {}),
        ("languages", {}),
    ],
)
def test_the_answers_are_those_of_the_engines_of_this_machine(both, path, more):
    samples = tones(300, 400)
    model = {"model": "whisper-1"} if path == "transcriptions" else {}
    local, there = (post(url, path, samples, data={**model, **more}) for url in both[:2])
    assert (local.status_code, there.status_code) == (200, 200)
    if "stream" not in more:
        assert there.json() == local.json()
    else:  # the pieces come together, in the same order
        assert "Tone 300 hertz." in there.text
        assert there.text == local.text


def test_texts_models_and_what_is_refused_are_the_same_too(both):
    for call in (
        lambda url: post(url, "punctuate", json={"text": ["one", "two"]}),
        lambda url: httpx.get(f"{url}/v1/server"),
    ):
        assert call(both[1]).json() == call(both[0]).json()
    assert "vermilion_engines_loaded 1.0" in httpx.get(f"{both[1]}/metrics").text


def test_many_at_once_get_their_own_answers(both):
    hertz = [300 + 100 * i for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        data = {"model": "whisper-1"}
        found = list(pool.map(lambda h: post(both[1], "transcriptions", tone(h), data=data).json()["text"], hertz))
    assert found == [f"Tone {h} hertz." for h in hertz]


def test_requests_share_batches(both, tmp_path):
    engines, notes = both[2:]

    async def work():
        return await asyncio.gather(*(engines.transcribe(task(tmp_path, tone(h))) for h in (500, 600, 700, 800)))

    before = len(noted(notes))
    assert [t.text for t in asyncio.run(work())] == [f"Tone {h} hertz." for h in (500, 600, 700, 800)]
    batches = noted(notes)[before:]
    assert sorted(p for batch in batches for p in batch) == [f"tone {h} hertz" for h in (500, 600, 700, 800)]
    assert len(batches) < 4
    assert engines.waiting_seconds == 0


def test_what_fails_fails_alone(both, tmp_path):
    engines = both[2]

    async def work():
        tasks = [task(tmp_path, tone(h)) for h in (500, BROKEN, 600)]
        return await asyncio.gather(*map(engines.transcribe, tasks), return_exceptions=True)

    one, broken, two = asyncio.run(work())
    assert (one.text, two.text) == ("Tone 500 hertz.", "Tone 600 hertz.")
    assert isinstance(broken, ModelError)
    assert "nobody expects" in str(broken)
    with pytest.raises(OptionsError, match="no such method"):
        asyncio.run(engines.call("nonsense", task=task(tmp_path, tone(500))))


def test_finished_segments_are_not_done_again(both, tmp_path):
    engines, notes = both[2:]
    steps = []

    async def note(step):
        steps.append(step)

    first = task(tmp_path, tones(500, 600))
    one = asyncio.run(engines.transcribe(first, note))
    assert (steps[-1].count, len(steps[-1].segments), steps[-1].done) == (2, 2, 2.0)
    before = len(noted(notes))
    again = asyncio.run(engines.transcribe(replace(first, finished=steps[-1].segments[:1])))
    assert again.text == one.text
    assert noted(notes)[before:] == [["tone 600 hertz"]]


def test_cancelled_work_ends(both, tmp_path):
    engines, notes = both[2:]

    def slow():
        return sum(f"tone {SLOW} hertz" in batch for batch in noted(notes))

    async def work():
        job = asyncio.create_task(engines.transcribe(task(tmp_path, tone(SLOW, 80), 80.0)))  # 20 batches
        while not slow():
            await asyncio.sleep(0.05)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        return await engines.transcribe(task(tmp_path, tone(500)))

    assert asyncio.run(work()).text == "Tone 500 hertz."
    assert slow() < 20
    assert engines.waiting_seconds == 0


def test_live_sessions_are_refused(both):
    with websockets.sync.client.connect(f"{both[1].replace('http', 'ws')}/v1/live?rate=16000") as socket:
        found = json.loads(socket.recv(10))
    assert found["error"]["message"] == "live sessions need --engine local"
    assert both[2].live_open == 0


def test_a_request_that_kills_replicas_is_refused_and_others_go_on(both, tmp_path):
    engines = both[2]

    async def work():
        tasks = [task(tmp_path, tone(h)) for h in (6666, 500)]  # in one batch
        return await asyncio.gather(*map(engines.transcribe, tasks), return_exceptions=True)

    refused, other = asyncio.run(work())
    assert isinstance(refused, RequestError)
    assert (refused.status, refused.code) == (500, "engine_failed")
    assert other.text == "Tone 500 hertz."
    assert engines.deaths >= 2


def test_impossible_replicas():
    with pytest.raises(OptionsError, match="in order"):
        ReplicaOptions(replicas=(2, 1))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"vermilion\[ray\]"):
        on_ray_serve(ReplicaOptions(address="auto"))
