"""Corpus jobs meet manifests, disks and moments that nobody wishes for."""

import json

import pytest
from corpus_helpers import write_rows

from vermilion.cluster.corpus import Corpus
from vermilion.cluster.provenance import Provenance
from vermilion.cluster.store import Store, read_rows
from vermilion.cluster.workers import Done
from vermilion.errors import ManifestError
from vermilion.manifests import iterate_manifest, read_manifest
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
