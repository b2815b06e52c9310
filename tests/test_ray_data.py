"""Corpora on Ray: the rows of one machine, whatever dies."""

import json
import os
import tempfile
import threading
from contextlib import contextmanager
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_helpers import Calm, Fussy, Noting, Touchy, Unloadable, make_corpus, write_rows
from ray_helpers import wait_for
from test_corpus import failures, options, origin, rows, run

from vermilion.cli import main
from vermilion.cluster.corpus import CorpusProgress
from vermilion.cluster.ray_actors import Fetch, fetched
from vermilion.cluster.ray_data import Places, RayOptions, chunk_of, dealt, room, round_of, run_ray
from vermilion.cluster.workers import WorkerOptions
from vermilion.errors import AudioError, ModelError, OptionsError
from vermilion.manifests import Utterance

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("ray.data")
HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, [HERE / "crashing", HERE, HERE.parent / "src"]))


@pytest.fixture(scope="module")
def local():
    """One Ray of this machine for the module, on loopback."""
    with started(num_cpus=2):
        yield


@contextmanager
def started(**resources):
    if ray.is_initialized():
        ray.shutdown()
    with tempfile.TemporaryDirectory(prefix="vr") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20,
            _node_ip_address="127.0.0.1", _temp_dir=folder, runtime_env={"env_vars": {"PYTHONPATH": PATHS}},
            **resources,
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


def test_a_file_that_kills_its_decoder_costs_itself_alone(local, tmp_path):
    manifest = make_corpus(tmp_path / "in", 5, seconds=0.2)
    names = ["crashes-decoders.wav" if i == 2 else f"clip0000{i}.wav" for i in range(5)]
    soundfile.write(tmp_path / "in" / names[2], np.full(1600, 0.1, np.float32), 16000)
    write_rows(manifest, [{"audio_filepath": name, "id": f"i{i}"} for i, name in enumerate(names)])
    found = run_ray(manifest, tmp_path / "out", Calm(), origin, RayOptions(chunk=2))
    assert (found.done, found.failed) == (4, 1)
    assert [row["id"] for row in rows(tmp_path / "out")] == ["i0", "i1", "i3", "i4"]
    bad = failures(tmp_path / "out")["i2"]
    assert (bad["error"], bad["attempts"]) == ("DecoderDied", 2)
    assert "SIGSEGV" in bad["message"]


def every_case(folder):
    """A manifest of all that can be said of a recording, and of all that can be wrong with one."""
    folder.mkdir()
    rng = np.random.default_rng(5)

    def write(name, seconds, channels=1, level=0.3, **more):
        samples = rng.uniform(-level, level, (int(seconds * 16000), channels)).astype(np.float32)
        soundfile.write(folder / name, samples * np.arange(1, channels + 1) / channels, 16000, **more)

    write("mono.wav", 1.0)
    write("stereo.wav", 1.5, 2)
    write("three.flac", 1.2, 3)
    write("loud.wav", 0.5, 2, level=1.6, subtype="FLOAT")  # is clipped, with a warning
    write("fails.wav", 2.5, 2)  # the recogniser cannot bear two seconds
    write("long.wav", 6.0)
    write("empty.wav", 0.0)
    (folder / "bad.wav").write_bytes(b"RIFF nonsense")
    part = (folder / "mono.wav").read_bytes()
    (folder / "box.bin").write_bytes(b"x" * 100 + part + b"x" * 100)
    lines = [{"audio_filepath": p.name} for p in sorted(folder.glob("*.*"))]
    lines += [
        {"audio_filepath": "stereo.wav", "offset": 0.25, "duration": 0.5, "lang": "fr", "speaker": "s", "text": "yes"},
        {"audio_filepath": "stereo.wav", "offset": 9.0},
        {"audio_filepath": "mono.wav", "id": "a language", "lang": "zh yue", "more": {"of": ["x/y", 3]}},
        {"audio_filepath": "box.bin", "id": "in a box", "audio_bytes": [100, len(part)]},
        {"audio_filepath": "box.bin", "id": "beyond the box", "audio_bytes": [100, 10**8]},
        {"audio_filepath": "none.wav"},
        {"audio_filepath": "mono.wav", "id": "a language"},
        {"audio_filepath": 3},
    ]
    write_rows(folder / "m.jsonl", lines)
    return folder / "m.jsonl"


@pytest.mark.parametrize(("channels", "redact"), [("mix", False), ("separate", True)])
def test_every_case_gives_what_one_machine_gives(local, tmp_path, channels, redact):
    manifest = every_case(tmp_path / "in")
    for out in ("one", "two"):  # hashes of paths compare where their salt is the same
        (tmp_path / out).mkdir()
        (tmp_path / out / ".salt").write_text("0123456789abcdef" * 2)
    limits = WorkerOptions(max_seconds=5.0)
    run(manifest, tmp_path / "one", Fussy(channels), options(max_seconds=5.0, redact=redact))
    run_ray(manifest, tmp_path / "two", Fussy(channels), origin, RayOptions(chunk=3, redact=redact, limits=limits))
    assert same(tmp_path / "one", tmp_path / "two")
    assert failures(tmp_path / "one") == failures(tmp_path / "two")
    found = {row["id"]: row for row in rows(tmp_path / "two")}
    assert len(found) == 9
    told = json.dumps(list(found.values())) + json.dumps(failures(tmp_path / "two"))
    assert ("stereo.wav" in told, "vermilion-ray" in told) == (not redact, False)
    assert "cannot bear" in told
    assert "clipped" in told
    if channels == "separate":
        assert {s.get("channel") for row in found.values() for s in row["sentences"]} == {None, 0, 1, 2}


def test_what_a_cluster_has_room_for():
    core, gpu = {"CPU": 16.0}, {"CPU": 16.0, "GPU": 2.0}
    # processes of a core each fill the node: decoders book nothing
    assert room([core], RayOptions()) == Places((1, 16), 1.0, 16, 0.0)
    assert room([{"CPU": 1.0}], RayOptions(cpus=8.0)) == Places((1, 1), 1.0, 1, 0.0)
    assert room([core] * 3, RayOptions(cpus=16.0)) == Places((1, 3), 16.0, 3, 0.0)
    # where cores are left over, decoders have them for themselves
    assert room([core], RayOptions(actors=(1, 2), cpus=4.0)) == Places((1, 2), 4.0, 8, 1.0)
    assert room([gpu, core], RayOptions(gpus=0.5)) == Places((1, 4), 1.0, 28, 1.0)
    assert room([gpu], RayOptions(gpus=1.0, actors=(2, 9))) == Places((2, 9), 1.0, 14, 1.0)
    assert room([core], RayOptions(address="auto", gpus=1.0)).actors == (1, 1)  # a node with one may come
    with pytest.raises(OptionsError, match="no GPU"):
        room([core], RayOptions(gpus=1.0))
    for impossible in ({"actors": (0, 1)}, {"actors": (3, 2)}, {"gpus": 1.5}, {"gpus": -1.0}):
        with pytest.raises(OptionsError):
            RayOptions(**impossible)


@pytest.mark.parametrize(
    ("words", "cpus", "gpus", "actors", "memory"),
    [
        (["--threads", "2", "--workers", "3"], 2.0, 0.0, (1, 3), 0),
        (["--threads", "2", "--worker-memory", "1.5"], 2.0, 0.0, (1, 0), 1_500_000_000),
        (["--device", "cuda"], 1.0, 1.0, (1, 0), 0),
        (["--device", "cuda", "--gpu-share", "0.5", "--threads", "4"], 4.0, 0.5, (1, 0), 0),
    ],
)
def test_options_of_the_command_reach_the_cluster(tmp_path, monkeypatch, words, cpus, gpus, actors, memory):
    seen = []

    def note(manifest, folder, build, origin, options, **_):
        seen.append((build, options))
        return CorpusProgress(0, 0, 0, 0.0, 0.0)

    monkeypatch.setattr("vermilion.cluster.ray_data.run_ray", note)
    manifest = make_corpus(tmp_path / "in", 1)
    command = ["transcribe", "--manifest", str(manifest), "-o", str(tmp_path / "out"), "--engine", "ray", "-q"]
    assert main([*command, "--address", "auto", "--models", str(tmp_path), *words]) == 0
    [(build, found)] = seen
    assert (found.cpus, found.gpus, found.actors, found.limits.memory) == (cpus, gpus, actors, memory)
    assert (found.address, build.models) == ("auto", str(tmp_path))


def test_options_that_cannot_be_are_refused(tmp_path):
    manifest = make_corpus(tmp_path / "in", 1)
    command = ["transcribe", "--manifest", str(manifest), "-o", str(tmp_path / "out"), "-q"]
    for words in (
        ["--worker-memory", "-1"],
        ["--worker-memory", "4", "--device", "cuda"],
        ["--engine", "ray", "--device", "cuda", "--gpu-share", "0"],
        ["--engine", "ray", "--device", "cuda", "--gpu-share", "1.5"],
        ["--engine", "ray", "--workers", "-2"],
    ):
        assert main([*command, *words]) == 2


def test_models_that_actors_cannot_load_are_said(local, tmp_path):
    manifest = make_corpus(tmp_path / "in", 2)
    with pytest.raises(ModelError, match=r"Ray gave up.*no model here"):
        run_ray(manifest, tmp_path / "out", Unloadable(str(tmp_path / "loaded")), origin, RayOptions())


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


def test_a_single_core_and_a_shared_gpu_are_enough(tmp_path):
    manifest = make_corpus(tmp_path / "in", 8, seconds=0.2)
    run(manifest, tmp_path / "one")
    with started(num_cpus=1, num_gpus=1):
        found = run_ray(manifest, tmp_path / "two", Calm(), origin, RayOptions(chunk=2))
        assert (found.done, found.failed) == (8, 0)
        notes = tmp_path / "notes"
        notes.mkdir()

        def both():
            """Let them go on when both have begun."""
            try:
                wait_for(lambda: len(list(notes.glob("*.notes"))) == 2, lambda: "only one actor works")
            finally:
                (notes / "go").touch()

        threading.Thread(target=both).start()
        shared = RayOptions(chunk=1, actors=(2, 2), cpus=0.5, gpus=0.5)
        run_ray(manifest, tmp_path / "three", Noting(str(notes), 0), origin, shared)
    assert same(tmp_path / "one", tmp_path / "two")
    assert same(tmp_path / "one", tmp_path / "three")
    assert len(list(notes.glob("*.notes"))) == 2


def test_blocks_are_smaller_where_recordings_are_long():
    def of(*lengths):
        return chunk_of([Utterance(str(i), "a.wav", duration=n) for i, n in enumerate(lengths)], RayOptions(chunk=16))

    assert [of(5.0), of(60.0), of(360.0), of(9000.0), of(0.0), of(None), of(60.0, None, 360.0), of()] == [
        16, 10, 2, 1, 16, 16, 3, 16,
    ]  # fmt: skip


def test_long_recordings_are_begun_first_and_lie_in_different_blocks():
    def of(lengths, blocks):
        items = [Utterance(str(i), "a.wav", duration=n) for i, n in enumerate(lengths)]
        return [item.duration if item.duration is not None else item.id for item in dealt(items, blocks)]

    assert of([1.0, 9.0, 3.0, 8.0, 2.0, 7.0], 3) == [9.0, 3.0, 8.0, 2.0, 7.0, 1.0]
    assert of([None] * 4, 2) == ["0", "1", "2", "3"]
    assert sorted(map(str, of([1.0, None, 5.0], 2))) == ["1", "1.0", "5.0"]
    assert round_of(1, 16) == 20_000
    assert round_of(100, 16) == 800_000
    assert round_of(10_000, 16) == 1_000_000


def test_a_cluster_that_cannot_be_reached_is_said(tmp_path):
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(OptionsError, match="cannot be used"):
        run_ray(make_corpus(tmp_path, 1), tmp_path / "out", Calm(), origin, RayOptions(address="127.0.0.1:1"))
