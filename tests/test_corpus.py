"""Corpus jobs: nothing lost, nothing twice, whatever dies; bad items cost themselves alone."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from corpus_helpers import Calm, Faulty, Greedy, Touchy, Unable, Undecodable, make_corpus, write_rows
from tiny import noise, write_aed, write_vad

from vermilion.audio.isolation import DecoderDied
from vermilion.cli import main
from vermilion.cli.corpus import Lines, Size, described, ended
from vermilion.cluster.corpus import CorpusOptions, CorpusProgress, count, run_corpus
from vermilion.cluster.provenance import Provenance, hash_files, provenance
from vermilion.cluster.reading import decoded
from vermilion.cluster.rows import alias
from vermilion.cluster.store import Store, read_rows
from vermilion.cluster.workers import WorkerOptions, own_gpu, transcribe
from vermilion.errors import CheckpointError, FormatError, ManifestError, ModelError, OptionsError
from vermilion.manifests import Utterance
from vermilion.pipeline import PipelineOptions

KILLS = int(os.environ.get("VERMILION_TEST_KILLS", "5"))
ITEMS = int(os.environ.get("VERMILION_TEST_ITEMS", "60"))


def origin(names):
    return Provenance({stage: {"name": name} for stage, name in names.items()})


def options(form="jsonl", part=7, **more):
    redact, retry = more.pop("redact", False), more.pop("retry_failures", False)
    return CorpusOptions(form, part, redact, retry, WorkerOptions(**{"chunk": 5, "patience": 60.0, **more}))


def run(manifest, out, build=None, chosen=None, **more):
    return run_corpus(manifest, out, build or Calm(), origin, chosen or options(), **more)


def rows(out):
    return sorted(read_rows(out), key=lambda row: row["id"])


def failures(out):
    return {row["id"]: row for row in map(json.loads, (out / "failures.jsonl").read_text().splitlines())}


def test_every_item_becomes_a_row_that_says_what_made_it(tmp_path):
    manifest = make_corpus(tmp_path / "in", 12)
    found = run(manifest, tmp_path / "out", chosen=options(workers=2))
    assert (found.done, found.failed, found.skipped) == (12, 0, 0)
    got = rows(tmp_path / "out")
    assert [row["id"] for row in got] == [f"item-{i:05d}" for i in range(12)]
    assert got[3]["text"] == "Heard 8003 samples."
    assert got[3]["manifest"]["speaker"] == "s3"
    assert got[3]["provenance"]["models"]["asr"] == {"name": "fake-asr"}
    assert [p.name for p in sorted((tmp_path / "out/parts").glob("*.jsonl"))] == [
        "part-000000.jsonl",
        "part-000001.jsonl",
    ]
    assert not list((tmp_path / "out/parts").glob("*.open"))


def test_a_second_run_finds_nothing_to_do_and_new_items_are_added(tmp_path):
    manifest = make_corpus(tmp_path / "in", 5)
    run(manifest, tmp_path / "out")
    before = rows(tmp_path / "out")
    again = run(manifest, tmp_path / "out")
    assert (again.done, again.skipped, again.seconds) == (5, 5, 0.0)
    assert rows(tmp_path / "out") == before
    make_corpus(tmp_path / "in", 8)
    assert run(manifest, tmp_path / "out").done == 8
    assert len(rows(tmp_path / "out")) == 8


def _job(manifest, out, form):
    run(manifest, out, Calm(0.05), options(form, workers=2, part=11, chunk=2))


def _written(out):
    """Rows so far, while a job is at work."""
    count = sum(file.stat().st_size // 8 for file in (out / "parts").glob("*.ids"))
    for file in (out / "parts").glob("*.open"):
        with suppress(FileNotFoundError):  # just sealed
            count += file.read_bytes().count(b"\n")
    return count


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_killed_at_random_moments_it_ends_complete_and_without_duplicates(tmp_path, form):
    pytest.importorskip("pyarrow")
    manifest, out = make_corpus(tmp_path / "in", ITEMS, seconds=0.1), tmp_path / "out"
    run(manifest, tmp_path / "calm", chosen=options(form, part=11))
    chance = random.Random(4)
    context = multiprocessing.get_context("spawn")
    for number in range(KILLS):
        before = _written(out)
        share = (ITEMS - before) // (KILLS - number + 1)
        goal = before + chance.randint(0, share)
        process = context.Process(target=_job, args=(manifest, out, form))
        process.start()
        while goal > before and _written(out) < goal and process.is_alive():
            time.sleep(0.002)
        process.join(chance.uniform(0.0, 0.05 if goal > before else 1.0))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"it was over before kill {number + 1}, at {_written(out)} rows"
    assert run(manifest, out, chosen=options(form, part=11)).skipped < ITEMS
    got = rows(out)
    assert len({row["id"] for row in got}) == len(got) == ITEMS
    assert got == rows(tmp_path / "calm")


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_last_line_is_an_item_to_be_done_again(tmp_path, cut):
    manifest = make_corpus(tmp_path / "in", 4)
    stop = iter([False] * 3 + [True] * 1000)
    run(manifest, tmp_path / "out", chosen=options(chunk=1), stopped=lambda: next(stop))
    part = tmp_path / "out/parts/part-000000.open"
    whole = part.read_bytes()
    assert whole.count(b"\n") >= 1
    part.write_bytes(whole[:-cut])
    run(manifest, tmp_path / "out", chosen=options(chunk=1))
    assert [row["id"] for row in rows(tmp_path / "out")] == [f"item-{i:05d}" for i in range(4)]


def test_what_a_kill_between_two_renames_leaves_is_put_right(tmp_path):
    pytest.importorskip("pyarrow")
    manifest = make_corpus(tmp_path / "in", 7)
    run(manifest, tmp_path / "out", chosen=options("parquet"))
    parts = tmp_path / "out/parts"
    # sealed, but the open part is still there; a half-made file; ids lost
    (parts / "part-000000.open").write_text("".join(json.dumps(row) + "\n" for row in rows(tmp_path / "out")))
    (parts / "part-000001.parquet.tmp").write_bytes(b"half")
    (parts / "part-000000.ids").unlink()
    assert run(manifest, tmp_path / "out", chosen=options("parquet")).skipped == 7
    assert len(rows(tmp_path / "out")) == 7
    assert not list(parts.glob("*.tmp"))


def test_a_damaged_part_is_named(tmp_path):
    manifest = make_corpus(tmp_path / "in", 7)
    run(manifest, tmp_path / "out")
    part = tmp_path / "out/parts/part-000000.jsonl"
    part.write_text("nonsense\n" + part.read_text())
    (tmp_path / "out/parts/part-000000.ids").unlink()
    with pytest.raises(FormatError, match=r"part-000000\.jsonl, line 1"):
        run(manifest, tmp_path / "out")


def test_other_settings_and_other_processes_are_refused(tmp_path):
    manifest = make_corpus(tmp_path / "in", 1)
    run(manifest, tmp_path / "out")
    with pytest.raises(OptionsError, match=r"other settings \(redact: false then, true now\)"):
        run(manifest, tmp_path / "out", chosen=options(redact=True))
    store = Store(tmp_path / "held", "jsonl", {})
    with pytest.raises(OptionsError, match="another process"):
        Store(tmp_path / "held", "jsonl", {})
    store.close()


@pytest.mark.slow
def test_a_crash_a_hang_and_a_bad_file_cost_themselves_alone(tmp_path):
    rows_in = []
    for i, seconds in enumerate([1, 3, 1, 4, 2, 1]):
        soundfile.write(tmp_path / f"{i}.wav", np.full(seconds * 16000, 0.1, np.float32), 16000)
        rows_in.append({"audio_filepath": f"{i}.wav", "id": f"i{i}"})
    (tmp_path / "bad.wav").write_bytes(b"RIFF nonsense")
    rows_in += [{"audio_filepath": "bad.wav", "id": "bad"}, {"audio_filepath": "none.wav", "id": "none"}]
    write_rows(tmp_path / "m.jsonl", rows_in)
    found = run(tmp_path / "m.jsonl", tmp_path / "out", Touchy(), options(chunk=8, patience=8.0))
    assert [row["id"] for row in rows(tmp_path / "out")] == ["i0", "i2", "i4", "i5"]
    bad = failures(tmp_path / "out")
    assert found.failed == len(bad) == 4
    assert (bad["i1"]["error"], bad["i1"]["attempts"]) == ("WorkerDied", 2)
    assert "SIGSEGV" in bad["i1"]["message"]
    assert "said nothing for 8 s" in bad["i3"]["message"]
    assert bad["bad"]["error"] == bad["none"]["error"] == "AudioError"


def test_a_crash_that_does_not_come_again_costs_nothing_and_failures_can_be_retried(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(3 * 16000, 0.1, np.float32), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav"}, {"audio_filepath": "late.wav"}])
    found = run(tmp_path / "m.jsonl", tmp_path / "out", Touchy(once=str(tmp_path)))
    assert (found.done, found.failed) == (1, 1)
    soundfile.write(tmp_path / "late.wav", np.full(16000, 0.1, np.float32), 16000)
    assert run(tmp_path / "m.jsonl", tmp_path / "out", Touchy(once=str(tmp_path))).failed == 1
    retried = run(tmp_path / "m.jsonl", tmp_path / "out", Touchy(once=str(tmp_path)), options(retry_failures=True))
    assert (retried.done, retried.failed) == (2, 0)


def test_lines_that_are_no_entries_and_ids_that_come_twice_are_recorded_once(tmp_path):
    make_corpus(tmp_path, 2)
    text = (tmp_path / "manifest.jsonl").read_text()
    (tmp_path / "manifest.jsonl").write_text("nonsense\n" + text + text.splitlines()[0] + "\n")
    for _ in range(2):
        found = run(tmp_path / "manifest.jsonl", tmp_path / "out")
        assert (found.done, found.failed) == (2, 2)
    assert {row["error"] for row in failures(tmp_path / "out").values()} == {"ManifestError"}


def test_models_that_cannot_be_loaded_and_manifests_that_are_not_there_end_the_run(tmp_path):
    with pytest.raises(CheckpointError, match="vermilion pull"):
        run(make_corpus(tmp_path / "in", 1), tmp_path / "out", Unable())
    with pytest.raises(ManifestError, match="there is no manifest"):
        run(tmp_path / "none.jsonl", tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_worker_that_needs_too_much_memory_costs_its_recording_alone(tmp_path):
    for i, seconds in enumerate([1, 2, 1]):
        soundfile.write(tmp_path / f"{i}.wav", np.full(seconds * 16000, 0.1, np.float32), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": f"{i}.wav", "id": f"i{i}"} for i in range(3)])
    run(tmp_path / "m.jsonl", tmp_path / "out", Greedy(), options(memory=6_000_000_000))
    found = {row["id"]: row for row in rows(tmp_path / "out")}
    assert [found[f"i{i}"]["text"] for i in range(3)] == ["Heard 1 seconds.", "", "Heard 1 seconds."]
    assert "MemoryError" in json.dumps(found["i1"]["failures"])
    with pytest.raises(ModelError, match="more memory"):
        run(tmp_path / "m.jsonl", tmp_path / "none", Greedy(always=True), options(memory=6_000_000_000))


def test_stretches_and_ids_of_a_manifest(tmp_path):
    soundfile.write(tmp_path / "talk.wav", np.full(5 * 16000, 0.1, np.float32), 16000)
    write_rows(
        tmp_path / "m.jsonl",
        [{"audio_filepath": "talk.wav", "offset": 1.0, "duration": 2.0}, {"audio_filepath": "talk.wav", "offset": 9.0}],
    )
    run(tmp_path / "m.jsonl", tmp_path / "out")
    [row] = rows(tmp_path / "out")
    assert (row["id"], row["dur_s"]) == ("talk_1000_2000", 2.0)
    assert "ends at 5.00 s" in failures(tmp_path / "out")["talk_9000"]["message"]


def salt_of(out):
    return (out / ".salt").read_text()


def test_an_id_that_holds_a_file_name_is_still_found_again(tmp_path):
    make_corpus(tmp_path, 2)
    lines = [{"audio_filepath": f"clip0000{i}.wav", "id": f"x clip0000{i}.wav"} for i in range(2)]
    write_rows(tmp_path / "manifest.jsonl", lines)
    for _ in range(2):
        assert run(tmp_path / "manifest.jsonl", tmp_path / "out", chosen=options(redact=True)).done == 2
    assert len(rows(tmp_path / "out")) == 2
    other = tmp_path / "other"
    run(tmp_path / "manifest.jsonl", other, chosen=options(redact=True))
    assert {r["id"] for r in rows(other)}.isdisjoint(r["id"] for r in rows(tmp_path / "out"))  # salted


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_redacted_output_holds_no_path(tmp_path, form):
    pytest.importorskip("pyarrow")
    home = tmp_path / "private-person"
    home.mkdir()
    soundfile.write(home / "secret-talk.wav", np.full(16000, 0.1, np.float32), 16000)
    (home / "secret-bad.wav").write_bytes(b"nonsense")
    lines = [
        {"audio_filepath": "secret-talk.wav", "from": "archive/secret-box.tar", "also": [f"{home}/x.txt", "kept"]},
        {"audio_filepath": "secret-bad.wav", "id": "take 1 of secret-bad", "url": "see https://private-person.org/s"},
        {"audio_filepath": ["secret-list.wav"]},
        {"audio_filepath": "secret-talk.wav"},
    ]
    write_rows(home / "m.jsonl", lines)
    run(home / "m.jsonl", tmp_path / "out", chosen=options(form, redact=True))
    again = run(home / "m.jsonl", tmp_path / "out", chosen=options(form, redact=True))
    assert (again.done, again.failed, again.answered) == (1, 3, 0)
    [row] = rows(tmp_path / "out")
    assert row["wav_path"] == row["id"] == alias(str(home / "secret-talk.wav"), salt_of(tmp_path / "out"))
    written = [p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()] + [json.dumps(row).encode()]
    assert row["manifest"]["also"][1] == "kept"
    assert "line 3 of the manifest" in failures(tmp_path / "out")["line 3"]["message"]
    assert not any(word in content for content in written for word in (b"secret", b"private-person"))


def test_a_language_that_the_manifest_names_is_not_identified(tmp_path):
    make_corpus(tmp_path, 4)
    lines = [{"audio_filepath": f"clip0000{i}.wav", "id": f"{i}"} for i in range(4)]
    for line, language in zip(lines, ("fr", "zh yue", "de-AT", "gibberish"), strict=True):
        line["lang"] = language
    write_rows(tmp_path / "manifest.jsonl", lines)
    run(tmp_path / "manifest.jsonl", tmp_path / "out")
    found = [row["sentences"][0]["lang"] for row in rows(tmp_path / "out")]
    assert found == ["fr", "zh yue", "de", "en"]


def test_a_recording_longer_than_a_window_gives_signs_of_life():
    from vermilion.audio import Recording

    pipeline = Calm()()
    pipeline.options = PipelineOptions(window_seconds=2.0)
    items = [Utterance("a", "a.wav"), Utterance("b", "b.wav")]
    said = list(transcribe(pipeline, items, lambda _: [Recording("a.wav", np.full(9 * 16000, 9000, np.int16))]))
    assert [answer[0] for answer in said if isinstance(answer, tuple)] == [0, 1]
    assert len([answer for answer in said if isinstance(answer, float)]) == 2 * (1 + 5)  # read; windows of 2 s


def test_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    own_gpu(0, 3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    own_gpu(4, 5)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    own_gpu(2, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_a_decoder_without_memory_costs_its_item_alone(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.1, np.float32), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav"}])
    run(tmp_path / "m.jsonl", tmp_path / "out", chosen=options(decode_memory=1 << 20))
    [row] = failures(tmp_path / "out").values()
    # Python may notice it first, or the library dies of it
    assert (row["error"], row["attempts"]) in {("DecoderDied", 2), ("AudioError", 1)}
    assert "more memory" in row["message"]


def test_a_decoder_that_dies_is_tried_once_more(tmp_path, monkeypatch):
    tried = []

    def dies(work):
        tried.append(work.name)
        raise DecoderDied("cannot read a.wav")

    monkeypatch.setattr("vermilion.cluster.reading.decode", dies)
    with pytest.raises(DecoderDied):
        decoded(Utterance("a", "a.wav"), WorkerOptions(), tmp_path, "mix")
    assert tried == ["a.wav", "a.wav"]


def test_a_manifest_is_counted_and_the_rest_estimated(tmp_path):
    manifest = make_corpus(tmp_path, 3)
    manifest.write_text(manifest.read_text() + "nonsense\n")
    assert count(manifest) == (4, None)
    write_rows(manifest, [{"audio_filepath": "a.wav", "duration": 1800.0}] * 2)
    assert count(manifest) == (2, 3600.0)
    step = CorpusProgress(done=10, failed=2, skipped=6, seconds=3600.0, elapsed=60.0, answered=6)
    assert step.remaining(18) == 60.0
    text = described(step, Size(18, 7200.0))
    assert "10/18 recordings" in text
    assert "(all: 2.00 h)" in text
    assert "1:00 left" in text


def test_rows_with_failed_segments_are_counted_and_said(tmp_path, capsys):
    for i, seconds in enumerate([0.5, 1.0, 0.5]):
        soundfile.write(tmp_path / f"{i}.wav", np.full(int(seconds * 16000), 0.1, np.float32), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": f"{i}.wav"} for i in range(3)])
    found = run(tmp_path / "m.jsonl", tmp_path / "out", Faulty())
    assert (found.done, found.failed, found.partial) == (3, 0, 1)
    assert [len(row["failures"]) for row in rows(tmp_path / "out")] == [0, 1, 0]
    said = []
    terminal = SimpleNamespace(say=said.append, fail=said.append)
    assert ended(terminal, found, tmp_path / "out", json=False, stopped=False) == 1
    assert any("1 recordings have segments that failed" in line for line in said)
    whole = replace(found, partial=0)
    assert ended(terminal, whole, tmp_path / "out", json=False, stopped=False) == 0
    assert ended(terminal, replace(whole, failed=1), tmp_path / "out", json=False, stopped=False) == 1
    assert ended(terminal, found, tmp_path / "out", json=False, stopped=True) == 130


def test_a_log_gets_a_line_now_and_then():
    said = []
    step = CorpusProgress(done=1, failed=0, skipped=0, seconds=3600.0, elapsed=60.0, answered=1)
    rare = Lines(SimpleNamespace(say=said.append), Size(2, 7200.0))
    rare(step)
    assert not said
    Lines(SimpleNamespace(say=said.append), Size(2, 7200.0), every=0.0)(step)
    assert "1/2 recordings" in said[0]


def test_a_full_disk_is_said(tmp_path):
    store = Store(tmp_path / "out", "jsonl", {})
    store._part.close()
    store._part = open("/dev/full", "ab")  # noqa: SIM115, PTH123 - a device
    with pytest.raises(FormatError, match="No space left"):
        store.add({"id": "a"})


def kilobytes():
    """Resident memory of this process and of its workers."""
    found = []
    for number in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
        found += [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return sum(found)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_stays_flat(tmp_path):
    items = int(os.environ.get("VERMILION_TEST_FLAT", "400"))
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1, np.float32), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "id": f"i{n}"} for n in range(items)])
    seen = []
    run(
        tmp_path / "m.jsonl",
        tmp_path / "out",
        chosen=options(chunk=16, part=100, isolate=False),
        report=lambda step: seen.append((step.done, kilobytes())) if step.done % 50 == 0 else None,
    )
    assert seen[-1][0] == items
    early = next(size for done, size in seen if done >= items // 4)
    assert seen[-1][1] - early < 20_000


def test_a_decoder_that_dies_says_which_signal_ended_it(tmp_path, monkeypatch):
    monkeypatch.setattr("vermilion.audio.isolation.context", lambda: multiprocessing.get_context("fork"))
    monkeypatch.setattr("vermilion.audio.isolation_child.main", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    from vermilion.audio.isolation import Decoding, decode

    with pytest.raises(DecoderDied, match=r"a\.wav.*SIGKILL"):
        decode(Decoding(tmp_path / "a.wav", tmp_path / "out", "a.wav"))


def test_a_decoder_that_dies_twice_is_recorded(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.1, np.float32), 16000)
    soundfile.write(tmp_path / "b.wav", np.full(16000, 0.1, np.float32), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav"}, {"audio_filepath": "b.wav"}])
    run(tmp_path / "m.jsonl", tmp_path / "out", Undecodable({"a": 1, "b": 2}))
    assert [row["id"] for row in rows(tmp_path / "out")] == ["a"]
    [row] = failures(tmp_path / "out").values()
    assert (row["id"], row["error"], row["attempts"]) == ("b", "DecoderDied", 2)


def test_hashes_follow_contents(tmp_path, monkeypatch):
    monkeypatch.setenv("VERMILION_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "model.bin"
    file.write_bytes(b"one")
    first = hash_files([file])
    assert hash_files([file]) == first
    file.write_bytes(b"another")
    assert hash_files([file]) != first


def test_the_command_line_with_real_networks(tmp_path, capsys):
    models = tmp_path / "models"
    write_vad(models / "FireRedVAD/VAD")
    write_aed(models / "FireRedASR2-AED")
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", noise(1.0, seed=i), 16000)
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": f"{i}.wav"} for i in range(3)])
    command = [
        "transcribe",
        "--manifest",
        str(tmp_path / "m.jsonl"),
        "-o",
        str(tmp_path / "out"),
        "--models",
        str(models),
    ]
    assert main([*command, "--json", "--route", "never", "--no-lid"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 3
    [one, *_] = rows(tmp_path / "out")
    assert len(one["provenance"]["models"]["asr"]["sha256"]) == 64
    assert one["provenance"]["options"]["lid"] is False
    assert main([*command, "--route", "never", "--no-lid", "a.wav"]) == 2
    assert main([*command, "--format", "srt"]) == 2
    assert main(["transcribe", "--manifest", str(tmp_path / "m.jsonl")]) == 2
    names = {"vad": "FireRedVAD", "asr": "something else"}
    made_by = provenance(names, models, PipelineOptions())
    assert "sha256" in made_by.models["vad"]
    assert made_by.models["asr"] == {"name": "something else"}
    assert made_by.fingerprint == provenance(names, models, PipelineOptions(threads=3)).fingerprint


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_in_hand(tmp_path):
    manifest = make_corpus(tmp_path / "in", 3)
    models = tmp_path / "models"
    write_vad(models / "FireRedVAD/VAD")
    write_aed(models / "FireRedASR2-AED")
    command = [
        sys.executable,
        "-m",
        "vermilion",
        "transcribe",
        "--manifest",
        str(manifest),
        "-o",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen([*command, "--models", str(models), "--chunk", "1"], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out/run.json").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 130), err
    assert len(rows(tmp_path / "out")) in (0, 1, 2, 3)
    assert run_again(command, models) == 0
    assert len(rows(tmp_path / "out")) == 3


def run_again(command, models):
    return subprocess.run([*command, "--models", str(models), "--chunk", "1"], check=False).returncode
