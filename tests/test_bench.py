"""`vermilion bench` on tiny models: what it measures and how it is written; no time is asserted."""

import json
import math

import numpy as np
import pytest
import soundfile
from punc_helpers import write_folder
from tiny import noise, write_aed, write_lid, write_vad

from vermilion import benchmarking
from vermilion.benchmarking import BenchmarkOptions, Ceiling, Load
from vermilion.checkpoints import catalogue
from vermilion.cli import main
from vermilion.errors import OptionsError
from vermilion.nn.decoder import DecoderConfig, TransformerDecoder
from vermilion.nn.packed import int8_available
from vermilion.testing import FakeDetector
from vermilion.transcript import Span

STAGES = [
    *("audio decoding", "features", "vad", "vad streaming", "events", "lid"),
    *("asr encoder", "asr decoder", "ctc", "punctuation", "pipeline"),
]
WITH_FLOOR = {"lid", "asr encoder", "asr decoder", "ctc", "punctuation", "pipeline"}
SHORT = ("--seconds", "1.5", "--repeat", "1", "--batch", "2", "--threads", "1")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_vad(root / "FireRedVAD" / "VAD")
    write_vad(root / "FireRedVAD" / "Stream-VAD", look_ahead=0)
    write_vad(root / "FireRedVAD" / "AED", outputs=3)
    write_lid(root / "FireRedLID")
    write_aed(root / "FireRedASR2-AED")
    write_folder(root / "FireRedPunc")
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The machine's own figures take a second each time: once will do."""
    monkeypatch.setattr(benchmarking, "_ceiling", lambda _: Ceiling(1e11, 1e10))


def bench(*arguments):
    return main(["bench", *map(str, arguments)])


def test_every_stage_is_measured(models, capsys):
    assert bench("--models", models, *SHORT, "--json") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    report = json.loads(out)
    assert [stage["stage"] for stage in report["stages"]] == STAGES
    for stage in report["stages"]:
        figures = [stage[key] for key in ("audio_s", "seconds", "audio_per_second", "ms_per_second")]
        assert all(math.isfinite(x) and x > 0 for x in figures)
        assert stage["audio_per_second"] == pytest.approx(1000 / stage["ms_per_second"])
        assert (stage["share_of_floor"] is not None) == (stage["stage"] in WITH_FLOOR)
        assert stage["share_of_floor"] is None or stage["share_of_floor"] > 0
    stages = {stage["stage"]: stage for stage in report["stages"]}
    assert stages["vad streaming"]["hop_p99_ms"] >= stages["vad streaming"]["hop_p50_ms"] > 0
    assert stages["asr decoder"]["ms_per_step_and_utterance"] > 0
    assert stages["asr decoder"]["audio_s"] == pytest.approx(3.0, abs=0.01), "one segment, searched twice in a batch"
    assert stages["pipeline"]["rtf"] == pytest.approx(stages["pipeline"]["ms_per_second"] / 1000)
    assert stages["asr encoder"]["model"] == "FireRedASR2-AED"
    assert report["precision"] == "float32"
    assert report["machine"].keys() >= {"cores", "flags", "threads", "device", "gflops", "gigabytes_per_second"}
    assert (report["machine"]["threads"], report["machine"]["device"]) == (1, "cpu")
    assert report["recording_s"] == pytest.approx(1.5, abs=0.01)
    assert "measuring asr decoder" in err
    assert "lid FireRedLID" in err


def test_the_table_has_a_row_per_stage(models, capsys):
    assert bench("--models", models, *SHORT) == 0
    out, _ = capsys.readouterr()
    rows = [line for line in out.splitlines() if line.startswith(tuple(STAGES))]
    assert len(rows) == len(STAGES)
    assert "100 GFLOP/s" in out
    assert "10 ms hop: p50" in out
    assert "per step and utterance, beam 3, batch 2" in out
    assert all(("%" in row) == (stage in WITH_FLOOR) for stage, row in zip(STAGES, rows, strict=True))


def test_quiet_writes_results_only(models, capsys):
    assert bench("--models", models, *SHORT, "--json", "--quiet") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not int8_available(), reason="this build of torch has no int8 kernels here")
def test_int8(models, capsys):
    assert bench("--models", models, *SHORT, "--json", "--precision", "int8") == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "int8"


def test_a_recording_is_used_up_to_the_limit_in_the_segments_found(models, tmp_path, capsys, monkeypatch):
    path = tmp_path / "talk.wav"
    soundfile.write(path, noise(4.0), 16000)
    spans = [Span(0.2, 1.0), Span(1.2, 1.25), Span(1.5, 2.5)]
    monkeypatch.setattr(benchmarking.Builder, "detector", lambda *_: FakeDetector(spans))
    assert bench(path, "--models", models, *SHORT, "--json") == 0
    cut = json.loads(capsys.readouterr().out)
    assert bench(path, "--models", models, "--seconds", "60", "--repeat", "1", "--batch", "1", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert (cut["recording_s"], whole["recording_s"]) == (1.5, 4.0)
    assert (cut["speech_s"], whole["speech_s"]) == (pytest.approx(0.8), pytest.approx(1.8))


def test_without_speech_the_recording_is_cut_into_pieces(models, tmp_path, capsys, monkeypatch):
    path = tmp_path / "noise.wav"
    soundfile.write(path, noise(12.0), 16000)
    monkeypatch.setattr(benchmarking.Builder, "detector", lambda *_: FakeDetector([]))
    assert bench(path, "--models", models, "--repeat", "1", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["speech_s"] == 12.0
    assert [stage["stage"] for stage in report["stages"]] == STAGES


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0.5"],
        ["--seconds", "many"],
        ["--batch", "0"],
        ["--repeat", "0"],
        ["--steps", "0"],
        ["--steps", "26"],
        ["--precision", "int3"],
        ["--device", "nonsense"],
        ["--threads", "-1"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_is_2(models, capsys, arguments):
    assert bench("--models", models, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")


def test_bad_recordings_are_1(models, tmp_path, capsys):
    short = tmp_path / "short.wav"
    soundfile.write(short, noise(0.5), 16000)
    assert bench(short, "--models", models) == 1
    assert "needs a second of audio" in capsys.readouterr().err
    assert bench(tmp_path / "missing.wav", "--models", models) == 2
    assert "missing.wav" in capsys.readouterr().err


def test_missing_models_are_3_and_nothing_is_measured(models, tmp_path, capsys, monkeypatch):
    assert bench("--models", tmp_path / "nowhere") == 3
    monkeypatch.setattr(catalogue, "find", lambda *_: None)
    monkeypatch.setattr(benchmarking, "starter_installed", lambda: False)
    monkeypatch.setattr("vermilion.loading.starter_installed", lambda: False)
    capsys.readouterr()
    assert bench() == 3
    err = capsys.readouterr().err
    assert err.startswith("error: no recogniser is present")


def test_options_are_checked():
    with pytest.raises(OptionsError, match="seconds"):
        BenchmarkOptions(seconds=float("nan"))


def test_a_floor_is_arithmetic_or_reading_whichever_takes_longer():
    ceiling = Ceiling(flops=100.0, bandwidth=10.0)
    assert Load(flops=1000.0, weights=50.0).seconds(ceiling) == 10.0
    assert Load(flops=100.0, weights=50.0).seconds(ceiling) == 5.0


def test_the_loads_of_a_search_count_the_linear_layers_of_the_decoder():
    config = DecoderConfig(vocabulary=11, d_model=16, n_head=2, n_layers=3)
    decoder = TransformerDecoder(config)
    own = sum(p.numel() for name, p in decoder.named_parameters() if p.ndim == 2)  # the embedding is the output layer
    memory, *steps = benchmarking._search_loads(config, frames=[25, 10], steps=[2, 1], beams=3, weight=4)
    kept = sum(
        p.numel() for layer in decoder.layers for p in (layer.cross_attn.w_ks.weight, layer.cross_attn.w_vs.weight)
    )
    assert (memory.flops, memory.weights) == (2 * kept * 35, 4 * kept)
    assert [load.flops for load in steps] == [2 * (own - kept) * rows for rows in (6, 3)]
    assert {load.weights for load in steps} == {4 * (own - kept)}


def test_the_machine_is_measured(monkeypatch):
    monkeypatch.undo()
    from vermilion.runtime import Runtime

    found = benchmarking._ceiling(Runtime.of())
    assert found.flops > 0
    assert found.bandwidth > 0


def test_the_synthetic_signal_is_loud_changes_and_repeats():
    samples = benchmarking.synthetic(11.0, rate=8000)
    assert samples.shape == (88000, 2)
    assert 0.02 < np.sqrt(np.mean(samples**2)) < 0.5
    assert np.abs(samples).max() <= 1
    assert np.array_equal(samples[:8000], samples[80000:])
