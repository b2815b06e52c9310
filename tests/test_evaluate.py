"""`vermilion evaluate` and `vermilion calibrate`, with tiny models: tables, JSON, the page, going on, comparing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import noise, write_aed, write_lid, write_sentencepiece, write_vad

from vermilion import loading
from vermilion.asr.calibration import FILE, read_calibration
from vermilion.cli import main
from vermilion.errors import AudioError, FormatError, ManifestError, OptionsError
from vermilion.evaluation import session
from vermilion.evaluation.alignment_view import markup, terminal
from vermilion.evaluation.journal import Answer, Journal
from vermilion.evaluation.recognition import align
from vermilion.evaluation.report import ReportOptions
from vermilion.evaluation.results import ScoringOptions
from vermilion.evaluation.running import batches, run
from vermilion.evaluation.scoring import evaluated
from vermilion.evaluation.session import Plan, System
from vermilion.evaluation.sets import NamedSet, events_of, read_lines, read_sets, spans_of, words_of
from vermilion.evaluation.tables import lines
from vermilion.evaluation.tasks import (
    EventTask,
    LanguageTask,
    PipelineTask,
    PunctuationTask,
    RecognitionTask,
    VoiceActivityTask,
    packed,
    unpacked,
)
from vermilion.evaluation.texts import read_texts
from vermilion.manifests import Utterance, write_manifest
from vermilion.pipeline import Pipeline
from vermilion.testing import FakeDetector, FakeEventDetector, FakeIdentifier, FakeRecognizer, FakeRestorer
from vermilion.transcript import Failure, Span

SILENT = ReportOptions(audio=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Four recordings with every kind of reference, and models of every kind."""
    tmp_path, rows = tmp_path_factory.mktemp("material"), []
    for i in range(4):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, noise(1.5 + i / 4, i), 16000)
        extra = {
            "segments": [[0.2, 1.0]],
            "events": {"speech": [[0.2, 1.0]], "music": [[1.0, 1.4]]},
            "words": [["你好", 0.2, 0.6], ["hello", 0.6, 1.0]],
        }
        rows.append(Utterance(str(i), str(path), text="你好，hello speech.", language=("zh", "en")[i % 2], extra=extra))
    write_manifest(tmp_path / "test.jsonl", rows)
    write_sentencepiece(write_aed(tmp_path / "models/FireRedASR2-AED"))
    write_lid(tmp_path / "models/FireRedLID")
    write_vad(tmp_path / "models/FireRedVAD/VAD")
    write_vad(tmp_path / "models/FireRedVAD/AED", outputs=3)
    return tmp_path


@pytest.fixture
def material(prepared, tmp_path):
    """The same, to write to."""
    return Path(shutil.copytree(prepared, tmp_path / "material"))


def evaluated_lines(capsys, material, task, *more):
    fast = ["--max-tokens", "6"] if task in ("asr", "timestamps", "pipeline") else []
    models = ["-m", str(material / "models"), *fast]
    code = main(["evaluate", task, str(material / "test.jsonl"), *models, "--json", *more])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def utterance(tmp_path, id="a", seconds=1.0, **more):
    path = tmp_path / f"{id}.wav"
    soundfile.write(path, noise(seconds, 1), 16000)
    return Utterance(id, str(path), **more)


# ---- the commands


def test_asr(material, capsys):
    out = material / "out"
    code, found, _ = evaluated_lines(capsys, material, "asr", "-o", str(out), "--group", "G=test")
    assert code == 0
    assert [row["set"] for row in found] == ["test", "G"]
    figures = found[0]["figures"]
    parts = sum(figures[k] for k in ("substituted", "deleted", "inserted"))
    assert figures["error rate"] == pytest.approx(parts)
    assert figures["tokens"] == 4 * 4
    assert figures["coverage"] == 1.0
    assert found[0]["interval"]["low"] <= figures["error rate"] <= found[0]["interval"]["high"]
    assert {f.name for f in out.iterdir()} == {
        "results.jsonl", "recordings.jsonl", "report.html", "summary.json", "reliability.png",
    }  # fmt: skip
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<audio") == 4
    assert "data:audio/mpeg;base64," in page
    assert json.loads((out / "summary.json").read_text("utf-8"))["lines"] == found


def test_asr_prints_a_table_and_the_worst_recordings(material, capsys):
    fast = ["-m", str(material / "models"), "--max-tokens", "6"]
    assert main(["evaluate", "asr", str(material / "test.jsonl"), *fast, "--show", "1"]) == 0
    out = capsys.readouterr().out
    assert "error rate" in out
    assert "FireRedASR2-AED" in out
    assert out.count("heard ") == 1


@pytest.mark.parametrize(
    ("task", "figures", "picture"),
    [
        ("vad", {"AUC", "F1", "FAR", "MR", "missed", "detection error"}, "roc.png"),
        ("lid", {"accuracy", "macro accuracy", "recordings"}, "confusion.png"),
        ("timestamps", {"start off", "start p95", "end off", "matched"}, None),
        ("pipeline", {"error rate", "speech AUC", "language accuracy", "word start off", "marks F1"}, "roc.png"),
    ],
)
def test_other_tasks(material, capsys, task, figures, picture):
    out = material / task
    code, found, _ = evaluated_lines(capsys, material, task, "-o", str(out))
    assert code == 0
    assert figures <= set(found[0]["figures"])
    assert picture is None or (out / picture).stat().st_size > 1000
    assert (out / "report.html").exists()


def test_events_are_told_apart(material, capsys):
    code, found, _ = evaluated_lines(capsys, material, "vad", "--events")
    assert code == 0
    assert [row["set"] for row in found] == ["test music", "test speech", "average"]
    assert all(0 <= row["figures"]["AUC"] <= 1 for row in found)


def test_known_text_is_aligned(material, capsys):
    code, found, _ = evaluated_lines(capsys, material, "timestamps", "--align")
    assert code == 0
    assert found[0]["figures"]["matched"] == 1.0


def test_punc(material, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_restorer", lambda *_, **__: FakeRestorer())
    code, found, _ = evaluated_lines(capsys, material, "punc", "-o", str(material / "out"))
    assert code == 0
    assert found[0]["figures"]["precision"] == 1.0  # the full stop at the end; the comma is lost
    assert found[0]["figures"]["recall"] == 0.5
    assert found[0]["figures"]["changed words"] == 0


def test_punc_needs_no_recordings(material, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_restorer", lambda *_, **__: FakeRestorer())
    (material / "texts.jsonl").write_text(
        '{"id": "p0", "text": "Hello, you?"}\n\n{"text": "你好。"}\n', encoding="utf8"
    )
    assert main(["evaluate", "punc", str(material / "texts.jsonl"), "-m", str(material / "models"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["set"] == "texts"
    assert [u.id for u in read_lines(material / "texts.jsonl")] == ["p0", "line 3"]
    for wrong, message in (('{"id": "p0"}', "neither"), ("[1]", "no JSON object"), ("{", "no JSON")):
        (material / "bad.jsonl").write_text(wrong)
        with pytest.raises(ManifestError, match=message):
            read_lines(material / "bad.jsonl")


def test_the_report_s_normalisation_is_warned_of_elsewhere(material, capsys):
    write_manifest(material / "fr.jsonl", [Utterance("a", str(material / "0.wav"), text="il y a", language="fr")])
    write_manifest(material / "en.jsonl", [Utterance("a", str(material / "0.wav"), text="a b", language="en-US")])
    models = ["-m", str(material / "models"), "--max-tokens", "2"]
    assert main(["evaluate", "asr", str(material / "fr.jsonl"), str(material / "en.jsonl"), *models]) == 0
    err = capsys.readouterr().err
    assert err.count("warning: ") == 1
    assert "fr is in fr: the report's normalisation" in err
    assert main(["evaluate", "asr", str(material / "fr.jsonl"), *models, "--normalisation", "whisper-basic"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_texts_without_a_reference_are_told(tmp_path, capsys):
    (tmp_path / "ref.txt").write_text("a hello\n")
    (tmp_path / "hyp.txt").write_text("a hello\n" + "".join(f"x{i} more\n" for i in range(5)))
    assert main(["evaluate", "asr", "--ref", str(tmp_path / "ref.txt"), "--hyp", str(tmp_path / "hyp.txt")]) == 0
    assert "has 5 texts without a reference, not counted: x0, x1, x2 and 2 more" in capsys.readouterr().err


def test_too_few_recordings_are_said_before_any_is_recognised(material, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_recognizer", lambda *_, **__: pytest.fail("the models were loaded"))
    rows = [Utterance(f"u{i}", str(material / "0.wav"), text="a") for i in range(16)]
    write_manifest(material / "few.jsonl", rows)
    assert main(["calibrate", str(material / "few.jsonl"), "-m", str(material / "models")]) == 2
    assert "16 recordings with a text are too few to calibrate on; give 20 or more" in capsys.readouterr().err


def test_two_files(tmp_path, capsys):
    (tmp_path / "ref.txt").write_text("a 你好世界\nb hello there\nc only here\n", encoding="utf8")
    (tmp_path / "one.txt").write_text("a 你好视界\nb hello there\n", encoding="utf8")
    rows = [{"uttid": "a", "text": "你好世界"}, {"uttid": "b", "text": "hello there"}, {"uttid": "c", "text": "only"}]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf8")
    code = main(
        ["evaluate", "asr", "--ref", str(tmp_path / "ref.txt"), "--hyp", str(tmp_path / "one.txt"), "--json",
         "--hyp", f"Two={tmp_path / 'two.jsonl'}", "-o", str(tmp_path / "out")]
    )  # fmt: skip
    one, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert code == 1  # one recording has no text
    assert (one["system"], one["failures"]) == ("one", 1)
    assert one["figures"]["error rate"] == pytest.approx(3 / 8)
    assert one["figures"]["coverage"] == pytest.approx(2 / 3)
    assert two["figures"]["error rate"] == pytest.approx(1 / 8)
    assert two["difference"]["value"] == pytest.approx(-2 / 8)
    assert "<audio" not in (tmp_path / "out/report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ["asr"],
        ["asr", "--ref", "a"],
        ["asr", "--hyp", "a"],
        ["asr", "x.jsonl", "--system", "nobody"],
        ["asr", "x.jsonl", "--system", "vermilion=model"],
        ["vad", "x.jsonl", "--events", "--system", "silero"],
        ["timestamps", "x.jsonl", "--align", "--system", "whisper"],
    ],
)
def test_wrong_usage(material, capsys, arguments):
    arguments = [str(material / "test.jsonl") if a == "x.jsonl" else a for a in arguments]
    assert main(["evaluate", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_line_without_its_reference_is_named(material, capsys):
    write_manifest(material / "bare.jsonl", [Utterance("bare", str(material / "0.wav"))])
    models = ["-m", str(material / "models")]
    assert main(["evaluate", "vad", str(material / "bare.jsonl"), *models]) == 1
    assert "bare has no reference: its line lacks 'segments'" in capsys.readouterr().err


def test_calibrate(material, capsys):
    rows = [Utterance(f"u{i}", str(material / f"{i % 4}.wav"), text="你好 hello") for i in range(24)]
    write_manifest(material / "dev.jsonl", rows)
    arguments = ["calibrate", str(material / "dev.jsonl"), "-m", str(material / "models"), "-o", str(material / "cal")]
    arguments += ["--max-tokens", "6"]
    assert main([*arguments, "--no-save", "--json"]) == 0
    before = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["confidence"] for row in before] == ["utterance", "word"]
    assert all(row["ece_after"] <= row["ece_before"] for row in before)
    folder = material / "models/FireRedASR2-AED"
    assert not (folder / FILE).exists()
    assert main(arguments) == 0  # its answers are known already: the run goes on
    assert "24 of 24 recordings were done" in capsys.readouterr().err
    assert read_calibration(folder).model == "FireRedASR2-AED"
    assert (material / "cal/calibration.png").exists()
    code, found, _ = evaluated_lines(capsys, material, "asr")
    assert code == 0
    assert found[0]["figures"]["coverage"] == 1.0


# ---- going on, comparing


class Stopping(FakeRecognizer):
    """Is interrupted after some batches."""

    def __init__(self, batches_left):
        super().__init__()
        self.left = batches_left

    def recognize(self, recordings, options=None, /):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().recognize(recordings, options)


def many(tmp_path, count=40):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(0.5), 16000)
    return NamedSet("many", tuple(Utterance(f"u{i}", str(path), text="heard 0.50") for i in range(count)))


def test_a_killed_run_goes_on(tmp_path):
    test_set, out = many(tmp_path), tmp_path / "out"
    about = {"models": "x"}
    with pytest.raises(KeyboardInterrupt), Journal(out, about) as journal:
        run(RecognitionTask(Stopping(1)), [test_set], journal)
    with (out / "results.jsonl").open("a", encoding="utf8") as half:
        half.write('{"key": "half a li')
    steps = []
    second = FakeRecognizer()
    with Journal(out, about) as journal:
        answers = run(RecognitionTask(second), [test_set], journal, steps.append)
    assert steps[0].resumed == 16
    assert (steps[-1].done, steps[-1].total) == (40, 40)
    assert sum(second.batches) == 24
    assert [a.value["text"] for a in answers["many"]] == ["heard 0.50"] * 40
    rows = (out / "results.jsonl").read_text("utf-8").splitlines()
    assert len([json.loads(r) for r in rows]) == 41
    third = FakeRecognizer()
    with Journal(out, about) as journal:
        run(RecognitionTask(third), [test_set], journal)
    assert third.batches == []


def test_other_options_are_refused_and_overwritten_on_demand(tmp_path):
    with Journal(tmp_path, {"task": "asr", "beam": 3}):
        pass
    with pytest.raises(OptionsError, match="beam was 3 and is 1"):
        Journal(tmp_path, {"task": "asr", "beam": 1})
    with Journal(tmp_path, {"task": "asr", "beam": 1}, overwrite=True) as journal:
        assert journal.answers == {}
    (tmp_path / "results.jsonl").write_text("something else\n")
    with pytest.raises(FormatError, match="--overwrite"):
        Journal(tmp_path, {"task": "asr", "beam": 1})


def test_a_changed_recording_or_a_failure_is_asked_again(tmp_path):
    one = utterance(tmp_path, text="x")
    with Journal(tmp_path / "out", {}) as journal:
        journal.add("s", one, Answer({"text": "x"}))
        journal.add("s", Utterance("b", "b.wav"), Answer(None, "gone"))
    with Journal(tmp_path / "out", {}) as journal:
        assert journal.get("s", one).value == {"text": "x"}
        assert journal.get("s", Utterance("a", one.audio, text="y")) is not None  # the recogniser never saw the text
        assert journal.get("s", Utterance("a", one.audio, offset=0.1)) is None
        assert journal.get("t", one) is None
        assert journal.get("s", Utterance("b", "b.wav")) is None


def test_failures_stand_in_their_place(tmp_path):
    class Refusing(FakeRecognizer):
        def recognize(self, recordings, options=None, /):
            if any(len(r) > 20000 for r in recordings):
                raise RuntimeError("too long")
            return [Failure("x", AudioError("bad")) if len(r) < 9000 else self._one(r, options) for r in recordings]

    rows = (
        utterance(tmp_path, "a", 1.0, text="heard 1.00"), utterance(tmp_path, "b", 2.0, text="one two"),
        Utterance("c", str(tmp_path / "none.wav"), text="one"), utterance(tmp_path, "d", 0.5, text="one"),
    )  # fmt: skip
    sets = [NamedSet("s", rows)]
    answers = run(RecognitionTask(Refusing()), sets, Journal(None, {}))
    found = evaluated("asr", "r", sets, answers).sets[0]
    assert [bool(r.failed) for r in found.rows] == [False, True, True, True]
    assert "too long" in found.rows[1].failed
    assert found.figures["deleted"] == pytest.approx(4 / 6)
    assert found.failures == 3


def test_against_an_earlier_run(tmp_path):
    sets = [many(tmp_path)]
    worse = System("vermilion", lambda: RecognitionTask(FakeRecognizer(answer=lambda _: "heard")), {})
    better = System("vermilion", lambda: RecognitionTask(FakeRecognizer()), {})
    session.evaluate([worse], sets, Plan(tmp_path / "old", report=SILENT))
    outcome = session.evaluate([better], sets, Plan(tmp_path / "new", against=tmp_path / "old", report=SILENT))
    change = outcome.lines[0].difference
    assert (change.value, change.significant) == (-0.5, True)
    with pytest.raises(FormatError):
        session.evaluate([better], sets, Plan(against=tmp_path / "nothing"))
    other = [NamedSet("other", sets[0].utterances)]
    with pytest.raises(OptionsError, match="in common"):
        session.evaluate([better], other, Plan(against=tmp_path / "old"))


def test_several_systems_and_published_figures(tmp_path):
    sets = [NamedSet("a", many(tmp_path).utterances, ("All",)), NamedSet("b", many(tmp_path, 3).utterances, ("All",))]
    systems = [
        System("one", lambda: RecognitionTask(FakeRecognizer(answer=lambda _: "heard", name="x")), {}),
        System("two", lambda: RecognitionTask(FakeRecognizer(name="x")), {}),
    ]
    published = {"Theirs": {"a": 0.1, "All": 0.2, "elsewhere": 0.3}}
    outcome = session.evaluate(systems, sets, Plan(tmp_path / "out", published=published, report=SILENT))
    found = [(line.name, line.system, line.figures["error rate"], line.published) for line in outcome.lines]
    assert found == [
        ("a", "x (one)", 0.5, False), ("a", "x (two)", 0.0, False), ("a", "Theirs", 0.1, True),
        ("b", "x (one)", 0.5, False), ("b", "x (two)", 0.0, False),
        ("All", "x (one)", 0.5, False), ("All", "x (two)", 0.0, False), ("All", "Theirs", 0.2, True),
        ("average", "x (one)", 0.5, False), ("average", "x (two)", 0.0, False),
    ]  # fmt: skip
    assert outcome.lines[1].difference.value == -0.5
    assert (tmp_path / "out/one/recordings.jsonl").exists()
    assert (tmp_path / "out/two/results.jsonl").exists()
    with pytest.raises(OptionsError):
        lines([outcome.evaluations[0], evaluated("asr", "y", [], {})])


# ---- scores with known answers


def test_voice_activity_with_known_answers(tmp_path):
    one = utterance(tmp_path, "a", 2.0, extra={"segments": [[0.5, 1.0]]})
    sets = [NamedSet("s", (one,))]
    exact = run(VoiceActivityTask(FakeDetector([Span(0.5, 1.0)])), sets, Journal(None, {}))
    figures = evaluated("vad", "d", sets, exact).sets[0].figures
    assert (figures["AUC"], figures["F1"], figures["missed"], figures["start off"]) == (1.0, 1.0, 0, 0.0)
    late = run(VoiceActivityTask(FakeDetector([Span(0.75, 1.25)])), sets, Journal(None, {}))
    figures = evaluated("vad", "d", sets, late).sets[0].figures
    assert figures["MR"] == pytest.approx(0.5)
    assert figures["start off"] == pytest.approx(0.25)
    assert figures["frame error"] == pytest.approx(50 / 198)


def test_detectors_without_probabilities_are_scored_by_their_segments(tmp_path):
    one = utterance(tmp_path, "a", 2.0, extra={"segments": [[0.5, 1.0]]})
    sets = [NamedSet("s", (one,))]
    answers = {"s": [Answer({"segments": [[0.5, 1.5]], "duration": 2.0}, "", 2.0, 1.0)]}
    found = evaluated("vad", "d", sets, answers)
    assert found.sets[0].figures["AUC"] is None
    assert found.sets[0].figures["FAR"] == pytest.approx(50 / 150)
    assert not found.curves


def test_events_languages_marks_and_transcripts_with_known_answers(tmp_path):
    one = utterance(
        tmp_path, "a", 1.0, text="Heard 1.00.", language="zh yue",
        extra={"events": {"music": [[0.0, 1.0]]}, "segments": [[0.0, 1.0]]},
    )  # fmt: skip
    sets = [NamedSet("s", (one,))]
    events = run(EventTask(FakeEventDetector({"music": [Span(0, 1)]})), sets, Journal(None, {}))
    assert evaluated("events", "e", sets, events).sets[0].name == "s music"
    labels = run(LanguageTask(FakeIdentifier(("zh wu",))), sets, Journal(None, {}))
    assert evaluated("lid", "l", sets, labels).sets[0].figures["accuracy"] == 1.0
    strict = evaluated("lid", "l", sets, labels, ScoringOptions(level="dialect"))
    assert strict.sets[0].figures["accuracy"] == 0.0
    assert strict.confusion.worst() == [("yue", "wu", 1)]
    marks = run(PunctuationTask(FakeRestorer()), sets, Journal(None, {}))
    assert evaluated("punc", "p", sets, marks).sets[0].figures["F1"] == 1.0
    whole = Pipeline(FakeDetector(), FakeIdentifier(("zh yue",)), FakeRecognizer(), FakeRestorer())
    found = evaluated("pipeline", "x", sets, run(PipelineTask(whole), sets, Journal(None, {}))).sets[0].figures
    assert (found["error rate"], found["marks F1"], found["language accuracy"]) == (0.0, 1.0, 1.0)


def test_probabilities_survive_the_journal():
    values = np.array([0.1, 0.5, 0.123456789], dtype=np.float32)
    assert unpacked(packed(values)).tolist() == values.tolist()


# ---- inputs


def test_sets_have_names_groups_and_no_id_twice(tmp_path):
    write_manifest(tmp_path / "x.jsonl", [Utterance("a", "a.wav")])
    arguments = [str(tmp_path / "x.jsonl"), f"y={tmp_path / 'x.jsonl'}"]
    x, y = read_sets(arguments, ["All=x,y", "One=y"])
    assert (x.name, x.groups, y.name, y.groups) == ("x", ("All",), "y", ("All", "One"))
    for wrong in ("All", "All=", "All=z", "=x"):
        with pytest.raises(OptionsError):
            read_sets(arguments, [wrong])
    with pytest.raises(OptionsError, match="share a name"):
        read_sets([arguments[0]] * 2)
    with pytest.raises(ManifestError, match="more than once"):
        NamedSet("s", (Utterance("a", "a.wav"),) * 2)


@pytest.mark.parametrize(
    ("read", "extra"),
    [
        (spans_of, {"segments": [1, 2]}),
        (spans_of, {"segments": [["x", 2]]}),
        (events_of, {"events": [[1, 2]]}),
        (words_of, {"words": [["a", 1]]}),
    ],
)
def test_references_that_are_none(read, extra):
    with pytest.raises(ManifestError):
        read(Utterance("a", "a.wav", extra=extra))
    assert read(Utterance("a", "a.wav")) is None


@pytest.mark.parametrize("text", ["", "a x\na y\n", '{"id": "a"}\n', '{"id": "a", "text": "x"}\nno json\n', "{}\n"])
def test_texts_that_are_none(tmp_path, text):
    (tmp_path / "t").write_text(text)
    with pytest.raises(ManifestError):
        read_texts(tmp_path / "t")


def test_an_id_alone_is_an_empty_text(tmp_path):
    (tmp_path / "t").write_text("a\nb  two  words\n")
    assert read_texts(tmp_path / "t") == {"a": "", "b": "two  words"}


def test_batches_respect_count_and_seconds():
    assert [len(b) for b in batches([None] * 40)] == [16, 16, 8]
    assert batches([100.0, 30.0, 90.0, 200.0]) == [[0], [1, 2], [3]]
    assert batches([]) == []


# ---- what people see


def test_hostile_text_stays_text(tmp_path):
    evil = '<script>alert(1)</script> {{table}} "><img src=x>'
    one = utterance(tmp_path, 'a"><b>', 0.5, text=f"{evil} mine", language="en")
    gone = Utterance("<i>gone</i>", str(tmp_path / "<u>.wav"), text="x")
    recognizer = FakeRecognizer(answer=lambda _: evil, name="<svg onload=1>")
    system = System("vermilion", lambda: RecognitionTask(recognizer), {"models": "<hr>"})
    session.evaluate([system], [NamedSet("<em>", (one, gone))], Plan(tmp_path / "out", scoring=ScoringOptions("raw")))
    page = (tmp_path / "out/report.html").read_text("utf-8")
    for bad in ("<script", "<img src=x", "<svg", "<hr>", "<em>", "<i>", "<u>", "onload=1>"):
        assert bad not in page
    assert page.count("<table>") == 1
    assert "&lt;script&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_alignments_are_coloured():
    steps = align(["你", "好", "HELLO", "BIG", "WORLD", "OK"], ["你", "豪", "HELLO", "WORLD", "OK", "NOW", "了"])
    said, heard = terminal(steps).plain.splitlines()
    assert (said, heard) == ("said  你好HELLO BIG WORLD OK ∗∗∗＊", "heard 你豪HELLO ∗∗∗ WORLD OK NOW了")
    html = markup(steps)
    assert '<b class="substitute">豪</b>' in html
    assert '<b class="delete">BIG</b>' in html
    assert '<b class="insert">NOW了</b>' in html
    assert 'HELLO <b class="delete">BIG</b> WORLD OK' in html
