"""`vermilion transcribe` over test doubles: outputs, skipping, failures, interruption, exit codes."""

import io
import json
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import soundfile

from vermilion import loading
from vermilion.cli import main
from vermilion.cli.state import FILE
from vermilion.errors import CheckpointError, MissingDependencyError, ModelError
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.testing import FakeDetector, FakeIdentifier, FakeRecognizer, FakeRestorer
from vermilion.transcript import Failure, Span


class Stage:
    """Stands for `loading.load`; notes what it was asked for."""

    def __init__(self):
        self.calls = []
        self.parts = {}

    def __call__(self, name=None, *, options=None, vad=None, punctuation_max_length=-1):
        self.calls.append((name, options, vad, punctuation_max_length))
        parts = {
            "detector": FakeDetector([Span(0.0, 1.0), Span(1.5, 2.0)]),
            "identifier": FakeIdentifier(("zh mandarin",)),
            "recognizer": FakeRecognizer(),
            "restorer": FakeRestorer(),
        } | self.parts
        return Pipeline(*parts.values(), options or PipelineOptions())


@pytest.fixture
def stage(monkeypatch):
    stage = Stage()
    monkeypatch.setattr(loading, "load", stage)
    return stage


@pytest.fixture
def wav(tmp_path):
    def make(name, seconds=2.0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.3 * np.sin(np.arange(int(seconds * 16000)) * 0.2)
        soundfile.write(path, samples.astype(np.float32), 16000)
        return path

    return make


def listed(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != FILE)


def run(*arguments):
    return main(["transcribe", *map(str, arguments)])


def test_prints_a_readable_transcript_and_says_which_models_answered(stage, wav, capsys):
    assert run(wav("talk.wav")) == 0
    out, err = capsys.readouterr()
    assert out == "[00:00.0] Heard 1.00.\n[00:01.5] Heard 0.50.\n"
    assert "fake-asr" in err
    assert "fake-vad" in err
    assert "(cpu)" in err
    assert "zh mandarin" in err


def test_writes_every_format_and_skips_what_is_done(stage, wav, tmp_path, capsys):
    one, two = wav("one.wav"), wav("two.wav")
    command = (one, two, "--output-dir", tmp_path / "out", "--format", "srt", "--format", "json,txt")
    assert run(*command) == 0
    assert listed(tmp_path / "out") == sorted(f"{n}.{f}" for n in ("one", "two") for f in ("srt", "json", "txt"))
    assert json.loads((tmp_path / "out/one.json").read_text())["text"] == "Heard 1.00. Heard 0.50."
    assert len(stage.calls) == 1
    capsys.readouterr()
    assert run(*command) == 0
    assert len(stage.calls) == 1, "nothing to do: no model is loaded"
    assert "2 recordings already done and skipped" in capsys.readouterr().err
    (tmp_path / "out/two.srt").unlink()
    assert run(*command) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 recording already done" in err
    assert (tmp_path / "out/two.srt").exists()
    before = (tmp_path / "out/one.srt").stat().st_mtime_ns
    assert run(*command, "--overwrite") == 0
    assert (tmp_path / "out/one.srt").stat().st_mtime_ns > before


def test_default_formats(stage, wav, tmp_path):
    assert run(wav("a.wav"), "-o", tmp_path / "out") == 0
    assert listed(tmp_path / "out") == ["a.json", "a.srt"]


def test_same_stem_in_two_folders_gives_two_outputs(stage, wav, tmp_path):
    wav("in/x/talk.wav", 1.0)
    wav("in/y/talk.wav", 2.0)
    assert run(tmp_path / "in", "-o", tmp_path / "out", "-f", "json") == 0
    found = {p: json.loads((tmp_path / "out" / p).read_text())["dur_s"] for p in ("x/talk.json", "y/talk.json")}
    assert found == {"x/talk.json": 1.0, "y/talk.json": 2.0}


def test_the_same_stem_in_a_later_run_is_another_recording(stage, wav, tmp_path, capsys):
    one, two = wav("x/talk.wav", 1.0), wav("y/talk.wav", 2.0)
    assert run(one, "-o", tmp_path / "out") == 0
    assert run(two, "-o", tmp_path / "out") == 0
    assert listed(tmp_path / "out") == ["talk.json", "talk.srt", "y-talk.wav.json", "y-talk.wav.srt"]
    assert json.loads((tmp_path / "out/talk.json").read_text())["dur_s"] == 1.0
    assert "skipped" not in capsys.readouterr().err
    assert run(one, "-o", tmp_path / "out") == 0
    assert run(two, "-o", tmp_path / "out") == 0
    assert len(stage.calls) == 2, "both are done now"


def test_a_bad_file_fails_in_its_place_and_the_others_go_on(stage, wav, tmp_path, capsys):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"this is not audio")
    code = run(wav("a.wav"), bad, tmp_path / "missing.wav", wav("z.wav"), "-o", tmp_path / "out", "-f", "txt")
    err = capsys.readouterr().err
    assert code == 1
    assert listed(tmp_path / "out") == ["a.txt", "z.txt"]
    assert "error: " in err
    assert "bad.wav" in err
    assert "missing.wav" in err
    assert "Traceback" not in err
    assert "2 recordings done, 2 with failures" in err


class Fragile(FakeRecognizer):
    def recognize(self, recordings, options=None, /):
        return [
            Failure("x", ModelError("out of memory")) if len(samples) == 8000 else good
            for (samples, _), good in zip(recordings, super().recognize(recordings, options), strict=True)
        ]


def test_a_failed_segment_is_reported_and_the_rest_is_written(stage, wav, tmp_path, capsys):
    stage.parts["recognizer"] = Fragile()
    assert run(wav("a.wav"), "-o", tmp_path / "out", "-f", "json") == 1
    assert "00:01.5–00:02.0 asr failed: out of memory" in capsys.readouterr().err
    found = json.loads((tmp_path / "out/a.json").read_text())
    assert found["text"] == "Heard 1.00."
    assert len(found["failures"]) == 1


class Impatient(FakeRecognizer):
    """A user who presses Ctrl-C in the second recording."""

    def recognize(self, recordings, options=None, /):
        if any(len(samples) == 3 * 16000 for samples, _ in recordings):
            raise KeyboardInterrupt
        return super().recognize(recordings, options)


def test_interruption_leaves_finished_work_and_the_next_run_goes_on(stage, wav, tmp_path, capsys, monkeypatch):
    stage.parts |= {"recognizer": Impatient(), "detector": FakeDetector([Span(0.0, 3.0)])}
    monkeypatch.setattr(loading, "load", lambda *a, **k: _narrow(stage(*a, **k)))
    command = (wav("a.wav"), wav("b.wav", 3.0), wav("c.wav"), "-o", tmp_path / "out", "-f", "json")
    assert run(*command) == 130
    assert listed(tmp_path / "out") == ["a.json"]
    err = capsys.readouterr().err
    assert "interrupted: 1 of 3 recordings are done and saved" in err
    assert "again to go on" in err
    stage.parts["recognizer"] = FakeRecognizer()
    assert run(*command) == 0
    assert "1 recording already done" in capsys.readouterr().err
    assert listed(tmp_path / "out") == ["a.json", "b.json", "c.json"]


def _narrow(pipeline):
    """Batches of one recording."""
    pipeline.options = replace(pipeline.options, window_seconds=0.5)
    return pipeline


def test_standard_input(stage, wav, tmp_path, capsys, monkeypatch):
    data = wav("a.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("-", "-o", tmp_path / "out", "-f", "txt") == 0
    assert listed(tmp_path / "out") == ["stdin.txt"]


def test_json_is_one_object_per_recording_and_nothing_else(stage, wav, tmp_path, capsys):
    assert run(wav("a.wav"), tmp_path / "missing.wav", wav("b.wav"), "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r.get("uttid") for r in rows] == ["a", None, "b"]
    assert rows[1]["error"] == "AudioError"
    assert "missing.wav" in rows[1]["wav_path"]


def test_one_format_on_stdout(stage, wav, capsys):
    assert run(wav("a.wav"), "--format", "srt") == 0
    assert capsys.readouterr().out.startswith("1\n00:00:00,")


def test_quiet_says_nothing_but_the_result(stage, wav, capsys):
    assert run(wav("a.wav"), "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_options_reach_the_library(stage, wav):
    code = run(
        *(wav("a.wav"), "--models", "starter", "--recognizer", "whisper", "--language", "en", "--channels", "separate"),
        *("--beam-size", "5", "--no-timestamps", "--no-events", "--no-punctuation", "--route", "never"),
        *("--device", "cpu", "--precision", "bfloat16", "--speech-threshold", "0.3", "--min-speech-frame", "7"),
        *("--punc-max-length", "30", "--max-seconds", "3600", "--max-line-width", "20"),
    )
    assert code == 0
    name, options, vad, length = stage.calls[0]
    assert (name, length) == ("starter", 30)
    assert (options.recognizer, options.language, options.channels, options.route) == (
        "whisper",
        "en",
        "separate",
        "never",
    )
    assert (options.events, options.punctuation, options.vad, options.lid) == (False, False, True, True)
    assert (options.precision, options.max_seconds) == ("bfloat16", 3600.0)
    assert (options.decoding.beam_size, options.decoding.timestamps) == (5, False)
    assert (vad.speech_threshold, vad.min_speech_frame) == (0.3, 7)


def test_presets_of_voice_activity_and_what_differs_from_them(stage, wav):
    from vermilion.vad import VadOptions

    assert run(wav("a.wav"), "--vad-preset", "published", "--speech-threshold", "0.3") == 0
    assert run(wav("b.wav"), "--vad-preset", "cli", "--word-edges", "model") == 0
    assert run(wav("c.wav"), "--vad-preset", "strict") == 2
    (_, first, published, _), (_, second, cli, _) = stage.calls
    assert published == replace(VadOptions(), speech_threshold=0.3)
    assert cli == VadOptions.preset("cli")
    assert (first.word_edges, second.word_edges) == ("sound", "model")


def test_defaults_are_those_of_the_library(stage, wav):
    from vermilion.vad import VadOptions

    assert run(wav("a.wav")) == 0
    [(name, options, vad, length)] = stage.calls
    assert (name, vad, length) == ("auto", VadOptions.preset("default"), -1)
    assert replace(options, window_seconds=PipelineOptions().window_seconds) == PipelineOptions()
    window = options.window_seconds
    assert window < PipelineOptions().window_seconds, "on a CPU, finished recordings are written sooner"


def test_every_option_of_the_library_can_be_given(capsys):
    from vermilion.decoding.options import DecodingOptions
    from vermilion.vad import VadOptions

    assert run("--help") == 0
    out = capsys.readouterr().out
    names = {f.name for options in (DecodingOptions, VadOptions, PipelineOptions) for f in fields(options)}
    internal = {"decoding", "lm_weight", "batch_seconds", "window_seconds", "route_confidence"}
    assert [n for n in sorted(names - internal) if f"--{n.replace('_', '-')}" not in out] == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.wav", "--format", "docx"],
        ["a.wav", "--nonsense"],
        ["a.wav", "--beam-size", "0"],
        ["a.wav", "--beam-size", "many"],
        ["a.wav", "--recognizer", "magic"],
        ["a.wav", "--speech-threshold", "7"],
        ["nothing*.wav"],
        ["a.wav", "--visualize"],
        ["a.wav", "--format", "srt", "--format", "vtt"],
        ["a.wav", "--json", "--format", "srt"],
    ],
)
def test_wrong_usage_is_2_and_one_clear_line(stage, wav, capsys, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    wav("a.wav")
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert stage.calls == [] or "recogni" in err


@pytest.mark.parametrize("error", [CheckpointError("no model is present"), MissingDependencyError("install it")])
def test_missing_models_are_3(monkeypatch, wav, capsys, error):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(loading, "load", load)
    assert run(wav("a.wav")) == 3
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_fault_of_ours_is_a_sentence_and_debug_shows_the_traceback(monkeypatch, wav, capsys):
    def load(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(loading, "load", load)
    assert run(wav("a.wav")) == 1
    assert "--debug" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        run(wav("a.wav"), "--debug")


def test_an_empty_recording_is_no_failure(stage, wav, tmp_path, capsys):
    assert run(wav("empty.wav", 0.0), "-o", tmp_path / "out") == 0
    assert "the recording is empty" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/empty.json").read_text())["text"] == ""


def test_visualize_draws_beside_the_outputs(stage, wav, tmp_path):
    assert run(wav("a.wav"), "-o", tmp_path / "out", "--visualize", "html", "-f", "json") == 0
    assert listed(tmp_path / "out") == ["a.html", "a.json"]


def test_outputs_that_cannot_be_written_fail_that_recording(stage, wav, tmp_path, capsys):
    (tmp_path / "out" / "a.srt").mkdir(parents=True)
    assert run(wav("a.wav"), wav("b.wav"), "-o", tmp_path / "out", "-f", "srt") == 1
    assert (tmp_path / "out/b.srt").read_text()
    assert "a.srt" in capsys.readouterr().err
