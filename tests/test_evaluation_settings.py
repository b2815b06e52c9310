"""`vermilion compare`: rates against references and against the first setting."""

import json

import numpy as np
import pytest
import soundfile
from tiny import noise, write_aed

from vermilion.cli import main
from vermilion.errors import FormatError, ManifestError
from vermilion.evaluation.normalisation import tokens
from vermilion.evaluation.recognition import score_utterance
from vermilion.evaluation.settings import _rate, read_samples
from vermilion.nn.packed import int8_available


@pytest.fixture
def material(tmp_path):
    """Three recordings, one of them with a wrong reference, and a model."""
    write_aed(tmp_path / "models/FireRedASR2-AED")
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", noise(1.0 + i, i), 16000)
    return tmp_path


def rows(capsys, material, *arguments):
    code = main(["compare", str(material / "list.tsv"), "-m", str(material / "models"), "--json", *arguments])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_error_rate_is_that_of_evaluate():
    pairs = [("Hello, World!", "hello world"), ("你好 世界。", "你好时界"), ("", "ab")]
    for reference, heard in pairs:
        score = score_utterance("u", reference, heard, unit="character")
        assert _rate([(reference, heard)]) == (score.counts.rate if score.counts.length else 1.0)
    assert _rate(pairs) == 3 / 14
    assert _rate([]) is None


def test_manifests_are_lists_too(material):
    rows = [{"audio_filepath": "0.wav", "text": "a b"}, {"audio_filepath": "2.wav", "offset": 0.5, "duration": 1.0}]
    (material / "list.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    whole, part = read_samples(material / "list.jsonl")
    assert (whole.path, whole.text, whole.audio()) == (material / "0.wav", "a b", material / "0.wav")
    assert len(part.audio()) == 16000
    (material / "wav.scp").write_text("u 1.wav\n")
    assert read_samples(material)[0].path == material / "1.wav"
    (material / "bad.jsonl").write_text("{")
    with pytest.raises(ManifestError):
        read_samples(material / "bad.jsonl")


def test_lists_of_recordings(tmp_path):
    (tmp_path / "list.tsv").write_text("# a remark\n\none.wav\thello there\ntwo.wav\n", encoding="utf8")
    one, two = read_samples(tmp_path / "list.tsv")
    assert (one.path, one.text) == (tmp_path / "one.wav", "hello there")
    assert (two.path, two.text) == (tmp_path / "two.wav", None)
    (tmp_path / "empty.tsv").write_text("\n", encoding="utf8")
    for name in ("empty.tsv", "none.tsv"):
        with pytest.raises(FormatError):
            read_samples(tmp_path / name)


@pytest.mark.skipif(not int8_available(), reason="this build of torch has no int8 kernels here")
def test_precisions_and_searches_side_by_side(material, capsys):
    (material / "list.tsv").write_text("0.wav\n1.wav\n2.wav\n", encoding="utf8")
    code, found = rows(capsys, material, "--precisions", "float32,int8", "--searches", "beam,ctc")
    assert code == 0
    assert [r["setting"] for r in found] == ["float32 beam", "float32 ctc", "int8 beam", "int8 ctc"]
    assert [r["cer"] for r in found] == [None] * 4
    assert (found[0]["difference"], found[0]["changed"]) == (0.0, 0)
    assert [r["encoder_error"] for r in found[:2]] == [0.0, 0.0]
    assert 0 < found[2]["encoder_error"] < 0.2
    assert all(r["audio_seconds_per_second"] > 0 for r in found)


def test_rates_against_references(material, capsys):
    (material / "list.tsv").write_text("0.wav\n1.wav\n", encoding="utf8")
    from vermilion.asr import AedRecognizer

    model = AedRecognizer.from_pretrained(material / "models/FireRedASR2-AED")
    text = model.recognize([material / "0.wav"])[0].text
    letters = len(tokens(text, unit="character"))
    assert letters
    (material / "list.tsv").write_text(f"0.wav\t{text}\n1.wav\n", encoding="utf8")
    assert rows(capsys, material, "--precisions", "float32")[1][0]["cer"] == 0.0
    row = {"audio_filepath": "0.wav", "text": text, "duration": 0.5}
    (material / "list.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "audio_filepath": "no.wav"}))
    assert (
        main(["compare", str(material / "list.jsonl"), "-m", str(material / "models"), "--precisions", "float32"]) == 1
    )
    assert "1 of 2 recordings" in capsys.readouterr().err
    (material / "list.tsv").write_text(f"0.wav\t{text}好好\n", encoding="utf8")
    assert rows(capsys, material, "--precisions", "float32")[1][0]["cer"] == pytest.approx(2 / (letters + 2))


def test_a_bad_recording_is_counted_and_costs_no_other(material, capsys):
    (material / "bad.wav").write_bytes(b"no audio")
    np.savetxt(material / "list.tsv", ["bad.wav", "0.wav"], fmt="%s")
    code, found = rows(capsys, material, "--precisions", "float32")
    assert code == 1
    assert found[0]["failures"] == 1


def test_unknown_settings_are_refused(material, capsys):
    (material / "list.tsv").write_text("0.wav\n", encoding="utf8")
    assert rows(capsys, material, "--precisions", "int3")[0] == 2
    assert rows(capsys, material, "--searches", "fast")[0] == 2
    assert main(["compare", str(material / "none.tsv")]) == 2
