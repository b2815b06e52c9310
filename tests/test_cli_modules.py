"""The commands for single modules, over test doubles."""

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from vermilion import loading
from vermilion.checkpoints import catalogue
from vermilion.checkpoints import hub as hubs
from vermilion.cli import main
from vermilion.errors import AudioError, CheckpointError, HubError
from vermilion.pipeline import Pipeline
from vermilion.testing import FakeDetector, FakeEventDetector, FakeIdentifier, FakeRecognizer, FakeRestorer
from vermilion.transcript import Failure, Span, Word


@pytest.fixture
def wav(tmp_path):
    def make(name, seconds=2.0):
        path = tmp_path / name
        samples = 0.3 * np.sin(np.arange(int(seconds * 16000)) * 0.2)
        soundfile.write(path, samples.astype(np.float32), 16000)
        return str(path)

    return make


@pytest.fixture
def stand_in(monkeypatch):
    """Put an object in the place of what a loader would build; returns the loader's calls."""

    def put(loader, thing):
        calls = []

        def load(name=None, **options):
            calls.append((name, options))
            return thing

        monkeypatch.setattr(loading, loader, load)
        return calls

    return put


def rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_vad(stand_in, wav, tmp_path, capsys):
    calls = stand_in("load_detector", FakeDetector([Span(0.25, 1.5)]))
    assert main(["vad", wav("a.wav"), wav("b.wav", 1.0), "--json", "--min-speech-frame", "9"]) == 0
    assert calls[0][1]["options"].min_speech_frame == 9
    a, b = rows(capsys)
    assert (a["uttid"], a["dur"], a["timestamps"]) == ("a", 2.0, [[0.25, 1.5]])
    assert b["timestamps"] == [[0.25, 1.0]]
    assert main(["vad", wav("a.wav"), str(tmp_path / "missing.wav")]) == 1
    out, err = capsys.readouterr()
    assert "1.25 s of speech in 2.00 s" in out
    assert "00:00.25" in out
    assert "missing.wav" in err
    assert "fake-vad" in err


def test_events(stand_in, wav, capsys):
    spans = {"speech": [Span(1.0, 2.0)], "singing": [], "music": [Span(0.0, 0.5)]}
    stand_in("load_event_detector", FakeEventDetector(spans))
    assert main(["events", wav("a.wav"), "--json"]) == 0
    [row] = rows(capsys)
    assert row["event2timestamps"] == {"speech": [[1.0, 2.0]], "singing": [], "music": [[0.0, 0.5]]}
    assert main(["events", wav("a.wav")]) == 0
    out = capsys.readouterr().out
    assert out.index("music  ") < out.index("speech  ")


def test_identify(stand_in, wav, capsys):
    stand_in("load_identifier", FakeIdentifier(("zh mandarin", "en")))
    assert main(["identify", wav("a.wav"), wav("b.wav"), "--json"]) == 0
    assert [(r["uttid"], r["lang"], r["confidence"]) for r in rows(capsys)] == [
        ("a", "zh mandarin", 0.9),
        ("b", "en", 0.9),
    ]
    assert main(["identify", wav("a.wav")]) == 0
    assert "zh mandarin" in capsys.readouterr().out


def test_a_failure_of_the_identifier_stands_in_its_place(stand_in, wav, capsys):
    class Broken(FakeIdentifier):
        def identify(self, recordings, /):
            if self.calls == 1:
                self.calls += 1
                return [Failure("b", AudioError("too odd"))]
            return super().identify(recordings)

    stand_in("load_identifier", Broken())
    assert main(["identify", wav("a.wav"), wav("b.wav"), wav("c.wav"), "--json"]) == 1
    assert [r.get("lang") or r["error"] for r in rows(capsys)] == ["en", "AudioError", "en"]


def test_punctuate(stand_in, tmp_path, capsys, monkeypatch):
    stand_in("load_restorer", FakeRestorer())
    assert main(["punctuate", "hello there", "yes", "--quiet"]) == 0
    assert capsys.readouterr().out == "Hello there.\nYes.\n"
    (tmp_path / "t.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert main(["punctuate", "--file", str(tmp_path / "t.txt"), "--json"]) == 0
    assert rows(capsys)[1] == {"punc_text": "Two.", "origin_text": "two"}
    monkeypatch.setattr(sys, "stdin", io.StringIO("three\n"))
    assert main(["punctuate", "-"]) == 0
    assert capsys.readouterr().out == "Three.\n"
    assert main(["punctuate"]) == 2
    assert main(["punctuate", "--file", str(tmp_path / "none.txt")]) == 1


class Aligner(FakeRecognizer):
    def align(self, audio, text):
        pieces = text.split()
        return [Word(p, i * 0.5, i * 0.5 + 0.5, 0.9) for i, p in enumerate(pieces)]


def test_align(stand_in, wav, tmp_path, capsys):
    stand_in("load_recognizer", Aligner())
    assert main(["align", wav("a.wav"), "--text", "hello world", "--json"]) == 0
    [row] = rows(capsys)
    assert [(w["text"], w["start_ms"], w["end_ms"]) for w in row["words"]] == [("hello", 0, 500), ("world", 500, 1000)]
    assert main(["align", wav("a.wav"), "--text", "hello world"]) == 0
    assert "0.50" in capsys.readouterr().out
    assert main(["align", wav("a.wav"), "--text", "hello world", "--format", "ctm"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    (tmp_path / "a.txt").write_text("good\nmorning\n")
    (tmp_path / "b.txt").write_text("bye")
    assert main(["align", wav("a.wav"), wav("b.wav"), "-o", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.TextGrid", "a.json", "b.TextGrid", "b.json"]
    assert json.loads((tmp_path / "out/a.json").read_text())["text"] == "good morning"
    assert main(["align", wav("a.wav"), wav("b.wav"), "--text", "one"]) == 2
    assert main(["align", wav("c.wav")]) == 1
    assert "give --text" in capsys.readouterr().err


def test_a_recogniser_that_cannot_align_says_which_can(stand_in, wav, capsys):
    stand_in("load_recognizer", FakeRecognizer())
    assert main(["align", wav("a.wav"), "--text", "x"]) == 3
    assert "FireRedASR2-AED" in capsys.readouterr().err


def test_plot(stand_in, wav, tmp_path, capsys):
    pipeline = Pipeline(FakeDetector([Span(0.0, 1.0)]), None, FakeRecognizer(), None)
    calls = stand_in("load", pipeline)
    assert main(["plot", wav("a.wav"), "-o", str(tmp_path / "p"), "--format", "html"]) == 0
    assert (tmp_path / "p/a.html").stat().st_size > 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "p/a.html")
    made = replace(pipeline.transcribe(wav("a.wav")), probabilities=None)
    (tmp_path / "a.json").write_text(json.dumps(made.to_dict()))
    assert main(["plot", wav("a.wav"), "--transcript", str(tmp_path / "a.json"), "-o", str(tmp_path / "q")]) == 0
    assert (tmp_path / "q/a.png").exists()
    assert len(calls) == 1, "with a transcript no model is loaded"
    (tmp_path / "bad.json").write_text("{}")
    assert main(["plot", wav("a.wav"), "--transcript", str(tmp_path / "bad.json"), "-o", str(tmp_path / "q")]) == 1


@pytest.mark.parametrize(
    ("command", "loader"),
    [
        (["vad"], "load_detector"),
        (["events"], "load_event_detector"),
        (["identify"], "load_identifier"),
        (["align", "--text", "x"], "load_recognizer"),
        (["plot"], "load"),
    ],
)
def test_missing_models_are_3_and_no_input_is_2(monkeypatch, wav, tmp_path, capsys, command, loader):
    def missing(*_, **__):
        raise CheckpointError("not present; pull it")

    monkeypatch.setattr(loading, loader, missing)
    monkeypatch.chdir(tmp_path)
    assert main([*command, wav("a.wav")]) == 3
    assert "error: not present; pull it" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "no*.wav")]) == 2


def test_models_lists_everything_known(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(catalogue.MODELS_VARIABLE, str(tmp_path))
    folder = tmp_path / "FireRedPunc"
    folder.mkdir()
    (folder / "out_dict").write_text("x")
    assert main(["models", "--json"]) == 0
    found = {row["name"]: row for row in rows(capsys)}
    assert list(found) == [known.name for known in catalogue.KNOWN]
    assert found["FireRedPunc"]["path"] == str(folder)
    assert found["FireRedPunc"]["complete"] is False
    assert "model.pth.tar" in found["FireRedPunc"]["missing"]
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in found)
    assert "incomplete" in out


def test_pull_goes_on_after_a_failure(capsys, monkeypatch, tmp_path):
    def pull(name, *, hub, target, revision, progress):
        if name == "FireRedLID":
            raise HubError("the hub refused")
        progress(hubs.PullProgress("model.pth.tar", 5, 10))
        return target / name

    monkeypatch.setattr(hubs, "pull", pull)
    command = ["pull", "fireredlid", "FireRedPunc", "--target", str(tmp_path), "--hub", "modelscope"]
    assert main(command) == 3
    out, err = capsys.readouterr()
    assert out == f"FireRedPunc: {tmp_path / 'FireRedPunc'}\n"
    assert "error: FireRedLID: the hub refused" in err
    assert "model.pth.tar" in err
    assert main(["pull", "FireRedPink"]) == 3
    assert main(["pull", "FireRedPunc", "--hub", "elsewhere"]) == 2


def test_convert(capsys, monkeypatch, tmp_path):
    from vermilion.checkpoints import convert as conversion

    def rewrite(folder, *, target, dtype):
        if folder.name == "empty":
            raise CheckpointError("holds nothing to convert")
        file = folder / f"model.{dtype}.safetensors"
        file.write_bytes(bytes(1200))
        return [file]

    monkeypatch.setattr(conversion, "convert", rewrite)
    for name in ("full", "empty"):
        (tmp_path / name).mkdir()
    assert main(["convert", str(tmp_path / "empty"), str(tmp_path / "full"), "--dtype", "float16"]) == 3
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'full' / 'model.float16.safetensors'}  1.2 kB\n"
    assert "error: holds nothing to convert" in err
    assert main(["convert", "FireRedPink"]) == 3
