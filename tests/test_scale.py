"""benchmarks/scale: corpus jobs predicted, by arithmetic that can be done by hand, and on a real tiny job."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_helpers import write_rows
from tiny import noise, write_aed, write_vad

from vermilion.cluster.ray_data import round_of
from vermilion.cluster.workers import WorkerOptions, WorkerPool
from vermilion.manifests import Utterance

HERE = Path(__file__).parent.parent / "benchmarks" / "scale"
if not HERE.is_dir():
    pytest.skip("benchmarks/ is not part of this copy", allow_module_level=True)
NAMES = ("figures", "simulation", "measuring", "run")


@pytest.fixture(scope="module", autouse=True)
def on_path():
    """The folder's modules import each other by their bare names."""
    kept = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))
    for name in NAMES:
        sys.modules.pop(name, None)
        if kept[name]:
            sys.modules[name] = kept[name]


def module(name):
    return importlib.import_module(name)


def figures(second=0.5, item=0.0, **more):
    f = module("figures")
    return f.Figures(
        "by hand", True, **{"workers": 1, "threads": 1, "cores": 1} | more, stages=(f.Stage("all", second, item),)
    )


def simulate(durations, made, cluster=None, **more):
    s = module("simulation")
    cluster = s.Cluster(**cluster or {})
    return s.simulate(s.chunks_from(durations, cluster.chunk), made, cluster, **more)


# ---- by hand


def test_one_worker_does_one_chunk_after_the_other():
    found = simulate([10.0] * 40, figures(0.5, 0.25, start=7.0, row=0.125), {"chunk": 16})
    work = 40 * (10 * 0.5 + 0.25)
    assert found.wall == pytest.approx(7 + work + 8 * 0.125)  # the rows of the last chunk are written at the end
    assert found.driver == pytest.approx(40 * 0.125 / found.wall)
    assert (found.lost, found.worker_crashes, found.failed) == (0, 0, 0)


def test_two_workers_share_and_the_last_one_is_faster_alone():
    # three chunks of 10 s of work: two at once at full load, the third alone in 60 % of the time
    found = simulate([20.0] * 3, figures(0.5, workers=2, cores=2, alone=0.6), {"workers": 2, "chunk": 1})
    assert found.wall == pytest.approx(10 + 6)
    assert found.busy == pytest.approx(26 / 32)


def test_a_killed_workers_recordings_are_tried_again_when_it_is_back():
    # 8 recordings of 1 s of work in one chunk; dies at 3.5 s: three are done, half a second is lost, back after 2 s
    found = simulate([2.0] * 8, figures(0.5, load=2.0), {"chunk": 8}, kills=[3.5])
    assert found.wall == pytest.approx(8 + 0.5 + 2)
    assert found.lost == pytest.approx(0.5)
    assert found.worker_crashes == 1


def test_a_recording_that_ends_workers_is_given_up_after_two():
    s = module("simulation")
    chunk = [s._Chunk(4, 8.0, poison=1)]
    found = s.simulate(chunk, figures(0.5, load=3.0), s.Cluster(chunk=4))
    assert (found.failed, found.worker_crashes) == (1, 2)
    assert 4 + 3 < found.wall <= 4 + 1 + 1 + 2 * 3  # all work, a recording's work lost, its own twice, two starts


def test_rounds_of_ray_wait_for_each_other_and_load_the_models_again():
    made = figures(0.5, start=5.0)
    durations = [2.0] * 3 + [20.0] + [2.0] * 4  # the fourth holds up the first round
    one = simulate(durations, made, {"workers": 2, "chunk": 1, "engine": "ray", "round": 100})
    two = simulate(durations, made, {"workers": 2, "chunk": 1, "engine": "ray", "round": 4})
    assert one.wall == pytest.approx(5 + 11)
    assert two.wall == pytest.approx(5 + 11 + 5 + 2)


def test_a_lost_node_is_replaced_and_its_chunks_are_done_again():
    made = figures(1.0, load=1.0)
    calm = simulate([100.0] * 200, made, {"nodes": 4, "chunk": 2})
    hit = simulate([100.0] * 200, made, {"nodes": 4, "chunk": 2, "node_failures": 1.0, "boot": 30.0}, seed=3)
    assert calm.wall == pytest.approx(5000)
    assert hit.node_failures > 0
    assert hit.wall > calm.wall + 30 / 4
    assert 0 < hit.lost <= hit.node_failures * 200
    assert hit.node_seconds > 4 * calm.wall


def test_machines_come_one_after_the_other_and_idle_ones_are_given_back():
    made = figures(1.0)
    late = simulate([60.0] * 10, made, {"nodes": 2, "chunk": 1, "per_minute": 1.0, "price": 3600.0})
    # the first is there at once, the second after a minute: 1 + 2 * 4.5 → the tenth ends at 6 minutes
    assert late.wall == pytest.approx(360)
    assert late.cost == pytest.approx(360 + 300)
    kept = simulate([60.0, 600.0], made, {"nodes": 2, "chunk": 1})
    given = simulate([60.0, 600.0], made, {"nodes": 2, "chunk": 1, "idle": 120.0})
    assert kept.node_seconds == pytest.approx(1200)
    assert given.node_seconds == pytest.approx(600 + 180)


def test_the_network_and_the_driver_can_be_what_limits():
    made = figures(0.5)
    free = {"workers": 4, "chunk": 1}
    assert simulate([100.0] * 4, made, free).wall == pytest.approx(50)
    # 4 workers want 8 s of audio per second; the link carries 2
    tight = simulate([100.0] * 4, made, {**free, "link": 2000.0}, bytes_per_second=1000.0)
    assert tight.wall == pytest.approx(200)
    slow = simulate([100.0] * 4, figures(0.5, row=40.0), free)
    assert slow.wall == pytest.approx(50 + 4 * 40)


def test_workers_share_a_gpu():
    f = module("figures")
    made = f.Figures("gpu", False, 1, 1, 1, (f.Stage("vad", 0.03), f.Stage("networks", 0.01, on="gpu")))
    assert made.gpu_share == pytest.approx(0.25)
    assert [made.slowness(n, 8, 1) for n in (1, 4, 8)] == pytest.approx([1, 1, 2])
    times = [simulate([100.0] * 64, made, {"workers": w, "gpus": 1, "chunk": 1}).wall for w in (1, 4, 8)]
    assert times == pytest.approx([64 * 4, 64, 64])  # beyond four workers the GPU is what limits


def test_chunks_are_those_of_the_job(tmp_path):
    s = module("simulation")
    durations = [100.0, 200.0, 400.0, 50.0, 700.0, 10.0, 10.0]
    items = iter([Utterance(str(i), "x.wav", duration=seconds) for i, seconds in enumerate(durations)])
    pool = WorkerPool(None, WorkerOptions(chunk=4))
    real = []
    while work := pool._chunk(items):
        real.append(len(work.items))
    assert real == [chunk.items for chunk in s.chunks_from(durations, 4)] == [3, 2, 2]
    assert WorkerOptions().chunk_seconds == s.CHUNK_SECONDS
    assert all(s.Cluster(10, w, chunk=c).in_a_round == round_of(10 * w, c) for w in (1, 100) for c in (1, 16))
    assert [s.grain(mean, 16) for mean in (5.0, 360.0, 7200.0)] == [16, 2, 1]


# ---- a million hours


def test_a_million_hours_keep_their_sum_and_are_the_same_again():
    s = module("simulation")
    load = s.Workload(1e6, 30.0, 0.8, poison=1e-6)
    chunks = s.chunks_of(load, s.Cluster(100, 16), np.random.default_rng(1))
    assert len(chunks) <= s.LARGEST
    assert sum(c.items for c in chunks) == load.recordings == 120_000_000
    assert sum(c.audio for c in chunks) == pytest.approx(3.6e9)
    assert 60 < sum(c.poison for c in chunks) < 200
    small = s.Workload(500.0, 30.0)
    cluster = s.Cluster(10, 4, node_failures=0.2, worker_crashes=0.2, stragglers=0.2, boot=60.0, price=1.0)
    made = figures(0.5, workers=4, cores=4, load=10.0, start=20.0)
    one, again = (s.predict(small, made, cluster, 2, seed=5) for _ in range(2))
    assert one == again
    assert one.runs[0] != one.runs[1]
    ideal = 500 * 3600 * 0.5 / 40
    assert ideal < one.middle("wall") < 1.5 * ideal


def test_rounds_are_simulated_finely_enough():
    s = module("simulation")
    load = s.Workload(1e5, 30.0, 0.0)  # 12 million recordings
    coarse = s.chunks_of(load, s.Cluster(100, 16), np.random.default_rng(1))
    fine = s.chunks_of(load, s.Cluster(100, 16, engine="ray"), np.random.default_rng(1))
    assert coarse[0].items == 32
    assert fine[0].items == 16
    assert s.Cluster(100, 16).in_a_round / (1600 * fine[0].items) < s.WAVES  # it cannot be finer than the job


def test_the_command_predicts_from_the_figures_in_the_folder(capsys):
    run = module("run")
    kept = sorted(path for path in HERE.glob("figures-*.json"))
    assert kept
    for path in kept:
        workers = module("figures").read(path)[-1].workers
        arguments = ["--hours", "100", "--nodes", "1,2", "--workers", str(workers), "--runs", "1", "--price", "2"]
        assert run.main(["predict", "--figures", str(path), *arguments, "--json"]) == 0
        one, two = json.loads(capsys.readouterr().out)
        assert one["wall_hours"] / two["wall_hours"] == pytest.approx(2, rel=0.1)
        assert one["cost"] == pytest.approx(2 * one["node_hours"])
        assert one["read_terabytes"] == pytest.approx(100 * 3600 * 4000 / 1e12)
        assert run.main(["predict", "--figures", str(path), *arguments]) == 0
        assert "audio hours per node hour" in capsys.readouterr().out
    assert run.main(["predict", "--figures", str(kept[0]), "--nodes", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_the_report_of_bench_becomes_figures_and_a_gpu_is_marked_as_assumed(tmp_path, capsys):
    stages = [("audio decoding", 0.2), ("features", 1.0), ("vad", 0.3), ("lid", 6.0), ("asr encoder", 6.0)]
    stages += [("asr decoder", 3.0), ("punctuation", 0.6), ("pipeline", 17.0)]
    report = {
        "machine": {"cores": 2, "threads": 2, "flags": ["avx2"]},
        "precision": "int8",
        "recording_s": 60.0,
        "speech_s": 30.0,
        "stages": [
            {"stage": name, "audio_s": 30.0 if name[:3] in ("lid", "asr", "pun") else 60.0, "seconds": seconds}
            for name, seconds in stages
        ],
    }
    (tmp_path / "bench.json").write_text(json.dumps(report))
    run, f = module("run"), module("figures")
    out, gpu = tmp_path / "figures.json", tmp_path / "gpu.json"
    assert run.main(["bench", str(tmp_path / "bench.json"), "--name", "published", "--out", str(out)]) == 0
    (made,) = f.read(out)
    # decoding and voice activity see all of the audio, the networks the half that is speech
    assert made.second == pytest.approx((0.2 + 0.3) / 60 + (6 + 9 + 0.6) / 60)
    assert made.per_core_hour() == pytest.approx(60 / 16.1 / 2)
    assert (
        run.main(["assume", str(out), "--name", "GPU", "--recognition", "1000", "--others", "2000", "--out", str(gpu)])
        == 0
    )
    (made,) = f.read(gpu)
    assert not made.measured
    assert "ASSUMED" in made.note
    assert made.second == pytest.approx(2 * 0.5 / 60 + 1 / 1000 + 2 / 2000)
    assert "(assumed)" in capsys.readouterr().out


# ---- on a real job


def test_costs_are_split_into_recordings_and_seconds():
    line = module("measuring").line_through
    assert line([(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)]) == pytest.approx((1.0, 2.0))
    assert line([(2.0, 3.0), (2.0, 5.0)]) == pytest.approx((4.0, 0.0))
    assert line([(1.0, 5.0), (3.0, 1.0)]) == pytest.approx((3.0, 0.0))  # never negative
    assert line([(1.0, 0.0), (3.0, 6.0)]) == pytest.approx((0.0, 1.5))


def test_stages_inside_others_are_not_counted_twice():
    ledger = module("measuring").Ledger()
    inner = ledger.timed("inner", lambda: sum(range(1000)))
    assert ledger.timed("outer", lambda: inner())() == 499500
    assert list(ledger.seconds) == ["outer"]


@pytest.mark.slow
def test_a_sample_is_measured_and_a_job_predicted_and_run(tmp_path, capsys):
    models = tmp_path / "models"
    write_aed(models / "FireRedASR2-AED")
    write_vad(models / "FireRedVAD/VAD", seed=1)
    manifest, rows = tmp_path / "all.jsonl", []
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", noise(1.0, seed=i), 16000)
        rows.append({"audio_filepath": f"{i}.wav", "id": f"i{i}", "duration": 1.0})
    write_rows(manifest, rows)
    run, out = module("run"), tmp_path / "figures.json"
    sample, rest = tmp_path / "sample.jsonl", tmp_path / "rest.jsonl"
    assert run.main(["sample", str(manifest), "--share", "0.5", "--out", str(sample), "--rest", str(rest)]) == 0
    names = [{json.loads(line)["id"] for line in path.read_text().splitlines()} for path in (sample, rest)]
    assert [len(n) for n in names] == [4, 4]
    assert not names[0] & names[1]
    job = ["--models", str(models), "--workers", "2", "--chunk", "2"]
    assert run.main(["measure", str(sample), *job, "--starts", "1", "--out", str(out)]) == 0
    (made,) = module("figures").read(out)
    assert made.workers == 2
    assert made.mean_seconds == pytest.approx(1.0, abs=0.01)
    assert made.audio_bytes == pytest.approx(32000, rel=0.05)
    assert {stage.name for stage in made.stages} >= {"decoding", "voice activity", "recognition"}
    assert min(made.start, made.load, made.row, made.second, made.row_bytes[0], made.parquet_bytes[0]) > 0
    assert run.main(["check", str(rest), "--figures", str(out), *job, "--out", str(tmp_path / "checks.jsonl")]) == 0
    line = json.loads((tmp_path / "checks.jsonl").read_text())
    assert (line["workers"], line["recordings"], line["audio"]) == (2, 4, 4.0)
    assert math.isclose(line["error"], line["predicted"] / line["measured"] - 1)
    assert "off by" in capsys.readouterr().out
