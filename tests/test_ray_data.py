"""Corpora on Ray: the rows of one machine, whatever dies."""

import json
import os
import tempfile
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_helpers import Calm, Touchy, make_corpus, write_rows
from test_corpus import failures, origin, rows, run

from vermilion.cluster.ray_data import Fetch, RayOptions, fetched, run_ray
from vermilion.cluster.workers import WorkerOptions
from vermilion.errors import AudioError, OptionsError
from vermilion.manifests import Utterance

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("ray.data")
PATHS = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")])


@pytest.fixture(scope="module")
def local():
    """One Ray of this machine for the module, on loopback."""
    with tempfile.TemporaryDirectory(prefix="vr") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20,
            _node_ip_address="127.0.0.1", _temp_dir=folder, runtime_env={"env_vars": {"PYTHONPATH": PATHS}},
        )  # fmt: skip
        yield
        ray.shutdown()


def same(one, other):
    return rows(one) == rows(other)


def test_the_rows_are_those_of_one_machine_and_it_goes_on(local, tmp_path):
    manifest = make_corpus(tmp_path / "in", 12, seconds=0.2)
    run(manifest, tmp_path / "one")
    first = iter([False] + [True] * 1000)
    part = RayOptions(rows_per_part=7, chunk=4, round=5)
    assert run_ray(manifest, tmp_path / "two", Calm(), origin, part, stopped=lambda: next(first)).done == 5
    found = run_ray(manifest, tmp_path / "two", Calm(), origin, part)
    assert (found.done, found.failed, found.skipped) == (12, 0, 5)
    assert same(tmp_path / "one", tmp_path / "two")


def test_an_item_that_kills_its_actor_costs_itself_alone(local, tmp_path):
    lines = []
    for i, seconds in enumerate([1, 3, 2, 1]):
        soundfile.write(tmp_path / f"{i}.wav", np.full(seconds * 16000, 0.1, np.float32), 16000)
        lines.append({"audio_filepath": f"{i}.wav", "id": f"i{i}"})
    (tmp_path / "bad.wav").write_bytes(b"nonsense")
    write_rows(tmp_path / "m.jsonl", [*lines, {"audio_filepath": "bad.wav", "id": "bad"}])
    run_ray(tmp_path / "m.jsonl", tmp_path / "out", Touchy(hangs=-1), origin, RayOptions(chunk=3))
    assert [row["id"] for row in rows(tmp_path / "out")] == ["i0", "i2", "i3"]
    found = failures(tmp_path / "out")
    assert (found["i1"]["error"], found["i1"]["attempts"]) == ("WorkerDied", 2)
    assert found["bad"]["error"] == "AudioError"


def test_recordings_come_by_http_and_other_places_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.1, np.float32), 16000)
    server = HTTPServer(("127.0.0.1", 0), lambda *a: SimpleHTTPRequestHandler(*a, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "x").mkdir()
    try:
        item = fetched(Utterance("a", f"{base}/a.wav"), tmp_path / "x")
        assert Path(item.audio).read_bytes() == (tmp_path / "a.wav").read_bytes()
        row = Fetch(WorkerOptions())({"id": "a", "item": json.dumps({"id": "a", "audio": f"{base}/a.wav?key=secret"})})
        assert (len(row["tracks"]), row["error"]) == (32000, "")
        missing = Fetch(WorkerOptions())(
            {"id": "b", "item": json.dumps({"id": "b", "audio": f"{base}/b.wav?key=secret"})}
        )
        assert "cannot fetch" in missing["error"]
        assert "secret" not in missing["error"]
    finally:
        server.shutdown()
    with pytest.raises(AudioError, match="cannot come by gopher"):
        fetched(Utterance("a", "gopher://host/a.wav"), tmp_path)


def test_a_cluster_that_cannot_be_reached_is_said(tmp_path):
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(OptionsError, match="cannot be used"):
        run_ray(make_corpus(tmp_path, 1), tmp_path / "out", Calm(), origin, RayOptions(address="127.0.0.1:1"))
