"""The report's tables: its figures as data, and ours beside them from imitations of the test sets."""

import json

import numpy as np
import pytest
import soundfile

from vermilion import loading
from vermilion.cli import main
from vermilion.errors import ManifestError, OptionsError
from vermilion.evaluation import published
from vermilion.evaluation.reported import missing, parts
from vermilion.manifests import Utterance, write_manifest
from vermilion.testing import FakeDetector, FakeIdentifier, FakeRecognizer, FakeRestorer
from vermilion.transcript import Span


@pytest.mark.parametrize("group", ["Mandarin-4", "Dialect-19", "All-24"])
def test_the_printed_averages_follow_from_the_single_sets(group):
    table = published.table(6)
    for system, rows in table.systems.items():
        values = [rows[name]["error rate"] for name in published.groups()[group]]
        assert sum(values) / len(values) == pytest.approx(rows[group]["error rate"], abs=6e-5), system


def test_groups_are_as_large_as_their_names_say():
    groups = published.groups()
    assert {name: len(sets) for name, sets in groups.items()} == {
        "Mandarin-4": 4, "Dialect-19": 19, "All-24": 24, "Sing-1": 1,
    }  # fmt: skip
    assert set(groups["All-24"]) == set(groups["Mandarin-4"]) | set(groups["Dialect-19"]) | set(groups["Sing-1"])


def test_table_2_repeats_table_6():
    small, large = published.table(2), published.table(6)
    for system, rows in small.systems.items():
        for name, figures in rows.items():
            assert large.systems[system]["opencpop" if name == "Sing-1" else name] == figures


def test_figures_are_shares_and_every_table_names_its_source():
    for number in (2, 3, 4, 5, 6):
        table = published.table(number)
        assert "2603.10420" in table.source
        assert all(0 < v < 1 for rows in table.systems.values() for f in rows.values() for v in f.values())
    assert published.table(3).systems["FireRedVAD"]["fleurs-vad-102"]["F1"] == 0.9757
    with pytest.raises(OptionsError, match="2, 3, 4, 5, 6"):
        published.table(1)


def manifest(folder, name, rows):
    """One recording of a second for each (language, text, extra)."""
    folder.mkdir(exist_ok=True)
    audio = folder / "second.wav"
    soundfile.write(audio, 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    found = [
        Utterance(str(i), str(audio), 0.0, 1.0, text, language, None, extra)
        for i, (language, text, extra) in enumerate(rows)
    ]
    write_manifest(folder / f"{name}.jsonl", found)


def test_averages_need_all_their_sets(tmp_path):
    table = published.table(2)
    for name in ("aishell1", "aishell2", "ws-net"):
        manifest(tmp_path, name, [("zh", "你好", {})])
    (part,) = parts(table, tmp_path)
    assert all(not s.groups for s in part.sets)
    manifest(tmp_path, "ws-meeting", [("zh", "你好", {})])
    (part,) = parts(table, tmp_path)
    assert [s.groups for s in part.sets] == [("Mandarin-4",)] * 4
    assert "kespeech" in missing(table, [part])


def test_a_folder_without_any_of_the_sets_says_what_is_looked_for(tmp_path):
    with pytest.raises(ManifestError, match=r"fleurs-vad-102\.jsonl"):
        parts(published.table(3), tmp_path)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_recognition_tables_stand_beside_the_published_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_recognizer", lambda *_, **__: FakeRecognizer(answer=lambda _: "你好"))
    for name in published.groups()["Mandarin-4"]:
        manifest(tmp_path, name, [("zh", "你好", {}), ("zh", "你早", {})])
    for number in (2, 6):
        assert main(["evaluate", "table", str(number), "--data", str(tmp_path), "--json", "--quiet"]) == 0
        found = lines(capsys)
        ours = next(r for r in found if r["set"] == "Mandarin-4" and "published" not in r)
        theirs = next(r for r in found if r["set"] == "Mandarin-4" and r["system"] == "FireRedASR2-AED")
        assert ours["figures"]["error rate"] == 0.25
        assert theirs["figures"] == {"error rate": 0.0305}


def test_the_voice_activity_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_detector", lambda *_, **__: FakeDetector([Span(0.0, 0.5)]))
    manifest(tmp_path, "fleurs-vad-102", [("zh", None, {"segments": [[0.0, 0.5]]})])
    assert main(["evaluate", "table", "3", "--data", str(tmp_path), "--json", "--quiet"]) == 0
    found = {r["system"]: r["figures"] for r in lines(capsys)}
    assert found["Silero-VAD"] == {"AUC": 0.9799, "F1": 0.9595, "FAR": 0.0941, "MR": 0.0395}
    assert found["FunASR-VAD"].keys() == {"F1", "FAR", "MR"}  # it has no curve
    assert len(found) == 6


def test_languages_and_dialects_are_scored_each_in_their_way(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_identifier", lambda *_, **__: FakeIdentifier(("zh yue",)))
    manifest(tmp_path, "fleurs", [("zh", "x", {}), ("en", "x", {})])
    manifest(tmp_path, "kespeech", [("zh xinan", "x", {}), ("zh", "x", {})])  # the second has no group
    manifest(tmp_path, "md-yue-daily", [("zh yue", "x", {})])
    assert main(["evaluate", "table", "4", "--data", str(tmp_path), "--json", "--quiet"]) == 0
    ours = {r["set"]: r["figures"] for r in lines(capsys) if "published" not in r}
    assert ours["fleurs"]["accuracy"] == 0.5  # "zh yue" is Chinese
    assert ours["dialects"]["accuracy"] == 0.5
    assert ours["dialects"]["recordings"] == 2


def test_the_punctuation_table_needs_texts_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_restorer", lambda *_, **__: FakeRestorer())
    for name in ("punc-zh", "punc-en"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": "1", "text": "你好，世界。"}\n', encoding="utf8")
    assert main(["evaluate", "table", "5", "--data", str(tmp_path), "--json", "--quiet"]) == 0
    theirs = [r for r in lines(capsys) if r.get("published")]
    assert {"set": "punc-en", "F1": 0.7483} in [{"set": r["set"], "F1": r["figures"]["F1"]} for r in theirs]
    assert any(r["set"] == "average" and r["figures"] == {"F1": 0.789} for r in theirs)


def test_what_a_table_refuses(tmp_path):
    manifest(tmp_path, "aishell1", [("zh", "你好", {})])
    assert main(["evaluate", "table", "7", "--data", str(tmp_path)]) == 2
    assert main(["evaluate", "table", "2", "--data", str(tmp_path), "--group", "A=aishell1"]) == 2
