"""Corpus jobs meet manifests, disks and moments that nobody wishes for."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from corpus_helpers import Messy, Slow, make_corpus, write_rows
from tiny import write_aed

from vermilion.asr import calibration
from vermilion.cluster.corpus import Corpus, CorpusOptions, run_corpus
from vermilion.cluster.provenance import Provenance, provenance
from vermilion.cluster.reading import Decoder, decoded
from vermilion.cluster.store import Store, read_rows
from vermilion.cluster.tables import rows_of, write_table
from vermilion.cluster.workers import Done, WorkerOptions
from vermilion.errors import AudioError, FormatError, ManifestError
from vermilion.manifests import Utterance, iterate_manifest, read_manifest
from vermilion.pipeline import PipelineOptions
from vermilion.transcript import Transcript

GOOD = b'{"audio_filepath": "good.wav", "id": "good"}\n'


def through(manifest, out, *, form="jsonl", redact=False):
    """What a job leaves whose networks always say the same; its store was opened anew for each call."""
    store = Store(out, form, {})
    job = Corpus(store, Provenance(), redact, lambda _: None)
    for item in job.items(manifest):
        job.take(Done(item, Transcript(item.audio, 1.0, "heard"), 1, 1.0))
    store.finish()
    return list(read_rows(out)), [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "line",
    [
        '{"audio_filepath": "café.wav"}'.encode("latin-1"),
        b'{"audio_filepath": "a\\u0000b.wav"}',
        b'{"audio_filepath": "a.wav", "n": ' + b"1" * 5000 + b"}",
        b'{"audio_filepath": "a.wav", "offset": 1' + b"0" * 400 + b"}",
    ],
)
def test_a_line_that_cannot_be_read_costs_itself_alone(tmp_path, line):
    (tmp_path / "m.jsonl").write_bytes(line + b"\n" + GOOD)
    [row], [failure] = through(tmp_path / "m.jsonl", tmp_path / "out")
    assert row["id"] == "good"
    assert (failure["id"], failure["error"]) == ("line 1", "ManifestError")
    with pytest.raises(ManifestError, match="line 1"):
        read_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize("redact", [False, True])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_names_that_are_no_text_and_numbers_that_are_none_do_not_end_the_run(tmp_path, form, redact):
    pytest.importorskip("pyarrow")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    lines = [{"audio_filepath": "caf\udce9.wav"}, {"audio_filepath": "a.wav", "snr": float("nan")}]
    write_rows(tmp_path / "m.jsonl", [*lines, {"audio_filepath": "circle.wav"}])
    for _ in range(2):
        rows, failures = through(tmp_path / "m.jsonl", tmp_path / "out", form=form, redact=redact)
        assert (len(rows), failures) == (3, [])
    json.dumps(rows, allow_nan=False)
    json.dumps(rows, ensure_ascii=False).encode()


def test_stretches_of_kaldi_that_run_to_the_end(tmp_path):
    (tmp_path / "wav.scp").write_text("talk talk.wav\n")
    (tmp_path / "segments").write_text("talk-1 talk 1.5 -1\ntalk-2 talk 1.0 2.5\n")
    assert [u.duration for u in iterate_manifest(tmp_path)] == [None, 1.5]
    (tmp_path / "segments").write_text("talk-1 talk 2.0 1.0\n")
    with pytest.raises(ManifestError, match="line 1: talk-1 ends before it begins"):
        list(iterate_manifest(tmp_path))


ROWS = [{"id": f"i{n}", "text": "heard", "manifest": {}, "provenance": {}} for n in range(5)]


def write_all(out, form):
    """A job of five items in parts of two, one of which fails."""
    store = Store(out, form, {}, rows_per_part=2)
    for row in ROWS:
        if row["id"] not in store:
            (store.fail if row["id"] == "i3" else store.add)(row)
    store.finish()


def crashing(out, form, step):
    """The same in a process that dies before its n-th change of the disk; whether it came so far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [step]

    def counted(work):
        def call(*given, **more):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return work(*given, **more)

        return call

    def torn(row):
        left[0] -= 2
        text = json.dumps(row)
        return text if left[0] > 0 else _Torn(text[: len(text) // 2])

    class _Torn(str):
        """Half a line; the process ends when it is written."""

    def half(file, found):
        line = torn(found)
        file.write(line.encode() + (b"" if isinstance(line, _Torn) else b"\n"))
        file.flush()
        if isinstance(line, _Torn):
            os._exit(9)

    try:
        for holder, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink"), (Path, "open"), (Path, "mkdir")):
            setattr(holder, name, counted(getattr(holder, name)))
        keep = Store._keep
        Store._keep = lambda self, file, found: (
            half(file, found) if left[0] < 3 else (torn(found), keep(self, file, found))
        )
        write_all(out, form)
        os._exit(0)
    finally:
        os._exit(1)  # an exception: nothing of pytest may run here


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_crash_between_any_two_changes_of_the_disk_loses_nothing(tmp_path, form):
    pytest.importorskip("pyarrow")
    step = 0
    while crashing(tmp_path / str(step), form, step):
        out = tmp_path / str(step)
        crashing(out, form, step // 2)  # again, while it is put right
        if (out / "parts").exists():
            ids = [row["id"] for row in read_rows(out)]
            assert len(ids) == len(set(ids))
        write_all(out, form)
        assert sorted(row["id"] for row in read_rows(out)) == [f"i{n}" for n in range(5) if n != 3]
        assert (out / "failures.jsonl").read_text().count("\n") == 1
        assert not [p for p in out.rglob("*") if p.suffix in (".tmp", ".open")]
        step += 1
    assert step > 30


def test_a_disk_that_fills_while_a_part_is_sealed_is_said_and_the_folder_given_back(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    store = Store(tmp_path / "out", "jsonl", {}, rows_per_part=2)
    store.add(ROWS[0])
    with monkeypatch.context() as patch:
        patch.setattr("vermilion.cluster.store._write_whole", full)
        with pytest.raises(FormatError, match="No space left on device; run the same command"):
            store.add(ROWS[1])
    store.close()
    again = Store(tmp_path / "out", "jsonl", {}, rows_per_part=2)
    assert again.rows == 2
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FormatError, match="No space left"):
            again.sync()
    again.close()


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "out/.lock"))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(FormatError, match="cannot write to .*Permission denied"):
        Store(tmp_path / "out", "jsonl", {})


def test_the_open_part_is_cleared_away_while_the_folder_is_still_ours(tmp_path, monkeypatch):
    store = Store(tmp_path / "out", "jsonl", {})
    store.add(ROWS[0])
    left = []
    release = store._lock.release
    monkeypatch.setattr(store._lock, "release", lambda: (left.extend(store.parts.glob("*.open")), release()))
    store.finish()
    assert left == []


def test_parts_that_were_carried_off_do_not_come_twice(tmp_path):
    store = Store(tmp_path / "out", "jsonl", {}, rows_per_part=2)
    for row in ROWS[:3]:
        store.add(row)
    store.close()
    (tmp_path / "out/parts/part-000000.jsonl").unlink()  # its ids stay
    write_all(tmp_path / "out", "jsonl")
    ids = [row["id"] for row in read_rows(tmp_path / "out")]
    assert len(ids) == len(set(ids))


def test_parquet_is_written_in_groups_that_fit_the_memory(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("vermilion.cluster.tables._GROUP", 500)
    long = {"id": "x", "text": "word " * 100, "dur_s": 1, "sentences": [], "flags": ["a"], "events": []}
    write_table([long, {"id": "y"}, long], tmp_path / "a.parquet")
    found = parquet.ParquetFile(tmp_path / "a.parquet")
    assert (found.num_row_groups, found.metadata.num_rows) == (2, 3)
    write_table([{"id": "z"}], tmp_path / "b.parquet")
    assert (
        found.schema_arrow == parquet.ParquetFile(tmp_path / "b.parquet").schema_arrow
    )  # also of columns without values
    assert [row["id"] for row in rows_of(tmp_path / "a.parquet")] == ["x", "y", "x"]


def job(manifest, out, build, **more):
    chosen = CorpusOptions(workers=WorkerOptions(**{"chunk": 2, "patience": 60.0, **more}))
    found = run_corpus(manifest, out, build, lambda _: Provenance(), chosen)
    return found, {row["id"]: row for row in read_rows(out)}


def test_workers_leave_no_samples_behind_and_ignore_what_is_the_parents(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    manifest = make_corpus(tmp_path / "in", 4)
    found, rows = job(manifest, tmp_path / "out", Messy(str(tmp_path), "item-00001"))
    assert (found.done, found.failed, len(rows)) == (4, 0, 4)
    assert (tmp_path / "died").exists()
    assert [p.name for p in (tmp_path / "temporary").iterdir() if p.name.startswith("vermilion")] == []


def test_a_worker_that_dies_while_it_loads_its_models_is_started_again(tmp_path):
    manifest = make_corpus(tmp_path / "in", 3)
    found, rows = job(manifest, tmp_path / "out", Slow(str(tmp_path)))
    assert (found.done, len(rows)) == (3, 3)
    assert (tmp_path / "third").exists()


def test_a_system_that_refuses_says_why(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("vermilion.cluster.reading.decode", refuse)
    make_corpus(tmp_path, 1)
    found = Decoder([Utterance("a", str(tmp_path / "clip00000.wav"))], WorkerOptions(), tmp_path, "mix", decoded)(0)
    assert isinstance(found, AudioError)
    assert "Too many open files" in str(found)


def test_redacted_ids_do_not_depend_on_how_the_manifest_is_called(tmp_path, monkeypatch):
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": "secret-talk.wav", "session": "secret-talk"}])
    through(tmp_path / "m.jsonl", tmp_path / "out", redact=True)
    monkeypatch.chdir(tmp_path)
    for name in ("m.jsonl", "../" + tmp_path.name + "/m.jsonl"):
        [row], _ = through(Path(name), tmp_path / "out", redact=True)
    assert "secret" not in json.dumps(row)


def test_provenance_names_all_that_changes_rows(tmp_path):
    write_aed(tmp_path / "FireRedASR2-AED")
    names = {"asr": "FireRedASR2-AED"}
    plain = provenance(names, tmp_path, PipelineOptions())
    assert provenance(names, tmp_path, PipelineOptions(), punctuation_max_length=20).fingerprint != plain.fingerprint
    (tmp_path / "FireRedASR2-AED" / calibration.FILE).write_text("{}")
    calibrated = provenance(names, tmp_path, PipelineOptions())
    assert len(calibrated.models["asr"]["calibration_sha256"]) == 64
    assert calibrated.models["asr"]["sha256"] == plain.models["asr"]["sha256"]
    assert provenance(names, tmp_path, PipelineOptions(calibration=False)).models == plain.models
    assert provenance({"asr": "FireRedASR2-LLM"}, tmp_path, PipelineOptions()).models["aligner"] == {
        "name": "FireRedASR2-AED",
        "sha256": plain.models["asr"]["sha256"],
    }
