"""`vermilion data`: what each sub-command finds, writes and says."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vermilion.audio import FeatureExtractor
from vermilion.cli import main
from vermilion.errors import ManifestError
from vermilion.manifests import read_manifest
from vermilion.training.checking import FAULTS
from vermilion.training.lhotse import is_cut_set, iterate_cuts
from vermilion.training.resampling import file_name

ONE = ("--processes", "1")


def wave(path, seconds=1.0, rate=16000, level=0.1, channels=1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = level * np.random.default_rng(seed).standard_normal((int(seconds * rate), channels))
    soundfile.write(path, samples.clip(-1, 1), rate)
    return path


def lines(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf8")
    return path


def run(capsys, *arguments):
    """Run a sub-command: exit code, its JSON, what went to stderr."""
    code = main(["data", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for i in range(12):
        wave(tmp_path / f"wavs/{i}.wav", 1 + i / 10, seed=i)
        rows.append({"audio_filepath": f"wavs/{i}.wav", "duration": 1 + i / 10, "text": f"text {'abcdefghijkl'[i]}"})
        rows[-1] |= {"lang": "en", "speaker": f"s{i // 2}", "id": f"u{i}"}
    return lines(tmp_path / "all.jsonl", rows)


# ---- check


def test_a_good_manifest_passes_and_is_described(manifest, capsys):
    code, found, _ = run(capsys, "check", manifest, *ONE)
    assert code == 0
    assert found["lines"] == 12
    assert found["bad"] == 0
    assert found["seconds"]["min"] == 1.0
    assert found["seconds"]["median"] == pytest.approx(1.55)
    assert found["hours"] == pytest.approx(18.6 / 3600)
    assert found["languages"] == {"en": pytest.approx(18.6 / 3600)}
    assert (found["speakers"], found["texts"]) == (6, 12)
    assert [(b["seconds"], b["utterances"]) for b in found["histogram"]] == [("1-2", 10), ("2-3", 2)]
    assert main(["data", "check", str(manifest), *ONE]) == 0
    out = capsys.readouterr().out
    assert "12 lines" in out
    assert "1-2" in out
    assert "█" in out


def faulty(folder):
    """One line for each kind of fault, named after it."""
    good = wave(folder / "good.wav")
    (folder / "unreadable.wav").write_bytes(b"no audio at all")
    cut = wave(folder / "damaged.wav", 2.0)
    cut.write_bytes(cut.read_bytes()[:40000])
    wave(folder / "silent.wav", level=0.0)
    for name in ("longer", "shorter", "fast", "second", "plain"):
        wave(folder / f"{name}.wav")
    text = {"text": "hello", "lang": "zh mandarin"}
    return [
        {"audio_filepath": good.name, "id": "fine", **text},
        {"audio_filepath": "plain.wav", "id": "fine", **text},
        {"audio_filepath": good.name, "id": "stretch", **text},
        {"audio_filepath": "none.wav", "id": "missing", **text},
        {"audio_filepath": "unreadable.wav", "id": "unreadable", **text},
        {"audio_filepath": good.name, "id": "empty", "offset": 5.0, **text},
        {"audio_filepath": "longer.wav", "id": "longer", "duration": 0.5, **text},
        {"audio_filepath": "shorter.wav", "id": "shorter", "duration": 1.5, **text},
        {"audio_filepath": cut.name, "id": "damaged", **text},
        {"audio_filepath": "silent.wav", "id": "silent", **text},
        {"audio_filepath": "second.wav", "id": "no text", "text": "?!", "duration": 0.5},
        {"audio_filepath": "second.wav", "id": "odd text", "text": "a <unk> b", "offset": 0.5, "duration": 0.5},
        {"audio_filepath": "fast.wav", "id": "too much text", "text": "word " * 20},
        {"audio_filepath": good.name, "id": "language", "text": "a", "lang": "xx", "duration": 0.9},
    ]


def test_every_kind_of_fault_is_found_and_nothing_else(tmp_path, capsys):
    manifest = lines(tmp_path / "m.jsonl", faulty(tmp_path))
    with manifest.open("a") as out:
        out.write("no json\n")
    report = tmp_path / "reports/bad.jsonl"
    code, found, _ = run(capsys, "check", manifest, "--report", report, *ONE)
    assert code == 1
    rows = [json.loads(line) for line in report.read_text(encoding="utf8").splitlines()]
    named = {(row["kind"], row["id"]) for row in rows}
    own = {(k, k) for k in FAULTS if k not in ("line", "id", "duration")}
    assert named == own | {("line", "line 15"), ("id", "fine"), ("duration", "longer"), ("duration", "shorter")}
    assert found["lines"] == 15
    assert found["faults"]["duration"] == 2
    assert set(found["faults"]) == set(FAULTS)
    assert main(["data", "check", str(manifest), *ONE]) == 1
    out = capsys.readouterr().out
    assert "recording is missing" in out


def test_what_is_not_wanted_is_not_checked(tmp_path, capsys):
    manifest = lines(tmp_path / "m.jsonl", faulty(tmp_path))
    _, found, _ = run(capsys, "check", manifest, "--no-audio", "--no-texts", *ONE)
    assert set(found["faults"]) == {"id", "stretch", "missing", "odd text", "language"}
    _, strict, _ = run(capsys, "check", manifest, "--characters-per-second", "3", *ONE)
    assert strict["faults"]["too much text"] >= 1


def test_several_processes_find_the_same(tmp_path, capsys):
    manifest = lines(tmp_path / "m.jsonl", faulty(tmp_path))
    assert run(capsys, "check", manifest, "--processes", "2") == run(capsys, "check", manifest, *ONE)


# ---- clean


def test_a_clean_manifest_has_no_fault_and_every_line_left_out_is_told(tmp_path, capsys):
    manifest = lines(tmp_path / "m.jsonl", faulty(tmp_path))
    with manifest.open("a") as out:
        out.write("no json\n")
    before, report = manifest.read_text(), tmp_path / "reports/out.jsonl"
    code, found, _ = run(capsys, "clean", manifest, tmp_path / "clean.jsonl", "--report", report, *ONE)
    assert (code, found["lines"], found["utterances"], found["left_out"], found["fixed"]) == (0, 15, 3, 12, 2)
    assert found["faults"] == dict.fromkeys((k for k in FAULTS if k not in ("duration",)), 1)
    assert found["seconds"] == pytest.approx(3.0)
    told = [json.loads(line) for line in report.read_text(encoding="utf8").splitlines()]
    assert {row["id"] for row in told if row["done"] == "put right"} == {"longer", "shorter"}
    assert sum(row["done"] == "left out" for row in told) == 12
    assert manifest.read_text() == before
    kept = {u.id: u for u in read_manifest(tmp_path / "clean.jsonl")}
    assert list(kept) == ["fine", "longer", "shorter"]
    assert [u.duration for u in kept.values()] == [1.0, 1.0, 1.0]
    assert kept["fine"].language == "zh mandarin"
    code, checked, _ = run(capsys, "check", tmp_path / "clean.jsonl", *ONE)
    assert (code, checked["faults"]) == (0, {})


def test_what_is_to_stay_stays(tmp_path, capsys):
    manifest = lines(tmp_path / "m.jsonl", faulty(tmp_path))
    keep = ["--keep", "silent", "--keep", "language", "--keep", "odd-text", "--durations", "drop"]
    code, found, _ = run(capsys, "clean", manifest, tmp_path / "clean.jsonl", *keep, *ONE)
    assert code == 0
    assert [u.id for u in read_manifest(tmp_path / "clean.jsonl")] == ["fine", "silent", "odd text", "language"]
    assert found["faults"]["duration"] == 2
    run(capsys, "clean", manifest, tmp_path / "quick.jsonl", "--no-audio", "--no-texts", *ONE)
    ids = [u.id for u in read_manifest(tmp_path / "quick.jsonl")]
    assert "missing" not in ids
    assert {"unreadable", "silent", "no text"} <= set(ids)
    assert run(capsys, "clean", manifest, tmp_path / "x.jsonl", "--keep", "dirt", *ONE)[0] == 2


def test_the_double_of_a_line_that_is_left_out_stays(tmp_path, capsys):
    wave(tmp_path / "a.wav")
    rows = [{"audio_filepath": "none.wav", "id": "x", "text": "a"}, {"audio_filepath": "a.wav", "id": "x", "text": "a"}]
    manifest = lines(tmp_path / "m.jsonl", rows)
    run(capsys, "clean", manifest, manifest, *ONE)  # in place
    assert [Path(u.audio).name for u in read_manifest(manifest)] == ["a.wav"]


def test_a_manifest_of_which_nothing_is_left_is_not_written(tmp_path, capsys):
    manifest = lines(tmp_path / "m.jsonl", [{"audio_filepath": "none.wav", "text": "a"}])
    code, _, err = run(capsys, "clean", manifest, tmp_path / "clean.jsonl", *ONE)
    assert code == 1
    assert "no line" in err
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


# ---- bad lines cost no other


@pytest.mark.parametrize("command", ["split", "pack", "resample", "cmvn"])
def test_bad_lines_are_named_counted_and_left_out(manifest, tmp_path, capsys, command):
    rows = manifest.read_text().splitlines()
    again = json.loads(rows[0])
    rows[3:3] = ["{", json.dumps({**again, "offset": -2.0}), json.dumps(again)]
    manifest.write_text("\n".join(rows))
    target = [tmp_path / "cmvn.ark"] if command == "cmvn" else ["-o", tmp_path / "out"]
    more = ["--dev", "0.2", "--test", "0.2"] if command == "split" else ONE
    code, found, err = run(capsys, command, manifest, *target, *more)
    assert code == 1
    assert found["failures"] == (3 if command in ("pack", "resample") else 2)
    assert "line 4: " in err
    assert "offset is -2.0" in err
    counts = {"split": lambda: sum(s["utterances"] for s in found["sets"].values())}
    assert counts.get(command, lambda: found["utterances"])() == (12 if command in ("pack", "resample") else 13)
    manifest.write_text("{\n")
    code, _, err = run(capsys, command, manifest, *target, *more)
    assert code == 1
    assert "error: " in err


# ---- split


def test_sets_are_written_and_lead_to_their_recordings(manifest, tmp_path, capsys):
    code, found, _ = run(capsys, "split", manifest, "-o", tmp_path / "sets", "--dev", "0.2", "--test", "0.2")
    assert code == 0
    sets = {n: read_manifest(tmp_path / f"sets/{n}.jsonl") for n in ("train", "dev", "test")}
    assert {n: len(us) for n, us in sets.items()} == {n: s["utterances"] for n, s in found["sets"].items()}
    assert sum(len(us) for us in sets.values()) == 12
    people = [{u.speaker for u in us} for us in sets.values()]
    assert sum(len(found) for found in people) == len(set().union(*people))
    assert all(len(u.load()) == round(16000 * u.duration) for us in sets.values() for u in us)
    assert main(["data", "split", str(manifest), "-o", str(tmp_path / "sets"), "--dev", "0.2", "--test", "0.2"]) == 0
    out, err = capsys.readouterr()
    assert "train" in out
    assert "groups share no speaker, text, recording" in err


def test_paths_relative_to_the_working_folder_survive(manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        run(capsys, "split", "all.jsonl", "-o", "sets/deep", "--apart", "speaker", "--dev", "0.2", "--test", "0.2")[0]
        == 0
    )
    assert all(len(u.load()) for u in read_manifest("sets/deep/train.jsonl"))


def test_a_split_that_cannot_be_says_why(manifest, tmp_path, capsys):
    code, _, err = run(capsys, "split", manifest, "-o", tmp_path / "sets", "--dev", "0.001")
    assert code == 1
    assert "dev would be empty" in err
    assert run(capsys, "split", manifest, "-o", tmp_path / "sets", "--dev", "50")[0] == 2


# ---- resample


def test_recordings_become_flac_and_are_kept_the_second_time(tmp_path, capsys):
    wave(tmp_path / "a.wav", 1.0, 44100, channels=2)
    wave(tmp_path / "b.wav", 2.0, 8000)
    rows = [{"audio_filepath": "a.wav", "id": "../a b"}, {"audio_filepath": "b.wav", "offset": 0.5, "duration": 1.0}]
    manifest = lines(tmp_path / "m.jsonl", [*rows, {"audio_filepath": "none.wav", "text": "x"}])
    code, found, err = run(capsys, "resample", manifest, "-o", tmp_path / "flac", *ONE)
    assert (code, found["utterances"], found["kept"], found["failures"]) == (1, 2, 0, 1)
    assert "none.wav" in err
    made = read_manifest(tmp_path / "flac/manifest.jsonl")
    assert [u.id for u in made] == ["../a b", "b_500_1000"]
    for utterance in made:
        facts = soundfile.info(utterance.audio)
        assert (facts.samplerate, facts.channels, facts.format) == (16000, 1, "FLAC")
        assert facts.duration == pytest.approx(1.0, abs=0.001)
        assert utterance.duration == pytest.approx(facts.duration)
        assert utterance.offset == 0
    assert {p.parent for p in tmp_path.rglob("*.flac")} == {tmp_path / "flac"}
    assert run(capsys, "resample", manifest, "-o", tmp_path / "flac", *ONE)[1]["kept"] == 2
    wave(tmp_path / "b.wav", 2.0, 8000, seed=9)  # newer than what was made of it
    assert run(capsys, "resample", manifest, "-o", tmp_path / "flac", *ONE)[1]["kept"] == 1
    assert not list((tmp_path / "flac").glob("*.part"))


def test_ids_make_safe_and_different_file_names(tmp_path, capsys):
    assert file_name("talk-1.2_三") == "talk-1.2_三"
    strange = ["../x", "/etc/passwd", "a/b", "a:b", "", ".hidden", "x" * 300]
    names = [file_name(s) for s in strange]
    assert len(set(names)) == len(strange)
    assert all("/" not in n and not n.startswith(".") and len(n) < 100 and n for n in names)
    wave(tmp_path / "a.wav")
    manifest = lines(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "id": i} for i in ("x", "X", "x")])
    code, found, err = run(capsys, "resample", manifest, "-o", tmp_path / "flac", *ONE)
    assert (code, found["utterances"], found["failures"]) == (1, 1, 2)
    assert err.count("would both become") == 2


# ---- pack, cmvn


def test_packed_recordings_are_a_manifest_for_everything_else(manifest, tmp_path, capsys):
    code, found, _ = run(capsys, "pack", manifest, "-o", tmp_path / "shards", "--per-shard", "5", *ONE)
    assert (code, found["shards"], found["utterances"], found["failures"]) == (0, 3, 12, 0)
    index = tmp_path / "shards/index.jsonl"
    assert run(capsys, "check", index, *ONE)[0] == 0
    code, plain, _ = run(capsys, "cmvn", manifest, tmp_path / "a/cmvn.ark", *ONE)
    assert (code, plain["utterances"]) == (0, 12)
    code, packed, _ = run(capsys, "cmvn", index, tmp_path / "b/cmvn.ark", *ONE)
    assert packed["frames"] == plain["frames"]
    a, b = (FeatureExtractor.from_cmvn(tmp_path / x / "cmvn.ark") for x in "ab")
    np.testing.assert_allclose(a.mean, b.mean)
    assert a.inverse_std.min() > 0


def test_cmvn_of_nothing_is_no_file(tmp_path, capsys):
    manifest = lines(tmp_path / "m.jsonl", [{"audio_filepath": "none.wav"}])
    code, _, err = run(capsys, "cmvn", manifest, tmp_path / "cmvn.ark", *ONE)
    assert code == 1
    assert "no frames" in err
    assert not (tmp_path / "cmvn.ark").exists()


# ---- convert


def test_kaldi_and_wenet_become_native(tmp_path, capsys):
    folder = tmp_path / "kaldi"
    wave(folder / "a.wav", 2.0)
    (folder / "wav.scp").write_text("rec a.wav\n")
    (folder / "segments").write_text("one rec 0 0.5\ntwo rec 0.5 2\n")
    (folder / "text").write_text("one hello\ntwo 你好\n", encoding="utf8")
    assert run(capsys, "convert", folder, tmp_path / "out/k.jsonl", *ONE)[0] == 0
    made = read_manifest(tmp_path / "out/k.jsonl")
    assert [(u.id, u.offset, u.duration, u.text) for u in made] == [("one", 0, 0.5, "hello"), ("two", 0.5, 1.5, "你好")]
    wenet = lines(
        tmp_path / "data.list", [{"key": "k", "wav": "kaldi/a.wav", "txt": "x"}, {"key": 1}, {"wav": "no.wav"}]
    )
    code, found, err = run(capsys, "convert", wenet, tmp_path / "w.jsonl.gz", "--measure", *ONE)
    assert (code, found["utterances"], found["failures"]) == (1, 1, 2)
    assert "line 2" in err
    assert read_manifest(tmp_path / "w.jsonl.gz")[0].duration == 2.0
    assert json.loads(gzip.decompress((tmp_path / "w.jsonl.gz").read_bytes()))["id"] == "k"


def test_a_manifest_can_be_measured_in_place(tmp_path, capsys):
    wave(tmp_path / "a.wav", 1.25)
    manifest = lines(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "text": "x"}])
    assert run(capsys, "convert", manifest, manifest, "--measure", *ONE)[0] == 0
    assert read_manifest(manifest)[0].duration == 1.25


@pytest.fixture
def cuts(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    wave(tmp_path / "talk.wav", 4.0)
    wave(tmp_path / "two.wav", 1.0, channels=2)
    talk, two = (lhotse.Recording.from_file(tmp_path / f"{n}.wav") for n in ("talk", "two"))
    said = [
        lhotse.SupervisionSegment("b", "talk", 1.5, 5.0, text="world", language="en", speaker="x"),
        lhotse.SupervisionSegment("a", "talk", 0.25, 1.0, text="hello", language="en", speaker="y", gender="f"),
    ]
    cut = lhotse.MonoCut("talk-1", 1.0, 2.5, 0, said, recording=talk)
    more = [two.to_cut(), lhotse.MonoCut("left", 0.0, 1.0, 0, [], recording=two)]
    more += [lhotse.MonoCut("plain", 0.0, 4.0, 0, [], recording=talk), cut.perturb_speed(1.1), cut.pad(10.0)]
    lhotse.CutSet.from_cuts([cut, *more]).to_file(tmp_path / "cuts.jsonl.gz")
    return tmp_path / "cuts.jsonl.gz"


def test_cut_sets_become_utterances_and_what_is_not_supported_is_named(cuts, tmp_path, capsys):
    assert is_cut_set(cuts)
    code, found, err = run(capsys, "convert", cuts, tmp_path / "out.jsonl", *ONE)
    assert (code, found["failures"], found["utterances"]) == (1, 3, 4)
    for reason in ("takes channels [0] of [0, 1]", "has transforms", "a MixedCut is not supported"):
        assert reason in err
    made = {u.id: u for u in read_manifest(tmp_path / "out.jsonl")}
    a, b = made["a"], made["b"]
    assert (a.offset, a.duration, a.text, a.speaker, a.extra) == (1.25, 1.0, "hello", "y", {"gender": "f"})
    assert (b.offset, b.duration, b.text) == (2.5, 1.0, "world")  # what reaches beyond the cut is cut off
    assert made["plain"].duration == 4.0
    assert len(a.load()) == 16000


def test_cuts_can_stay_whole_and_faults_stop_where_nobody_listens(cuts):
    faults = []
    found = {u.id: u for u in iterate_cuts(cuts, whole=True, on_fault=lambda n, e: faults.append(n))}
    assert faults == [3, 5, 6]
    whole = found["talk-1"]
    assert (whole.offset, whole.duration, whole.text) == (1.0, 2.5, "hello world")
    assert (whole.language, whole.speaker) == ("en", None)
    with pytest.raises(ManifestError, match="cut left: it takes channels"):
        list(iterate_cuts(cuts))


def test_damaged_cut_sets_are_typed(tmp_path):
    pytest.importorskip("lhotse")
    path = lines(tmp_path / "c.jsonl", [{"type": "MonoCut", "start": 0, "supervisions": []}])
    with pytest.raises(ManifestError, match="cannot read the cut set"):
        list(iterate_cuts(path))
    with pytest.raises(ManifestError, match="lhotse cut: vermilion data convert"):
        read_manifest(path)
    (tmp_path / "x.jsonl.gz").write_bytes(b"\x1f\x8bno")
    assert not is_cut_set(tmp_path / "x.jsonl.gz")
