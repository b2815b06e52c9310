"""Manifests larger than memory: every line once an epoch, in an order that can be taken up anywhere."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from training_helpers import DATA, QUIET, TINY, corpus, options  # noqa: E402

from vermilion.audio import FeatureExtractor  # noqa: E402
from vermilion.checkpoints.reader import read_checkpoint  # noqa: E402
from vermilion.errors import ManifestError, TrainingError  # noqa: E402
from vermilion.manifests import Utterance, read_manifest, write_manifest  # noqa: E402
from vermilion.training import lines as module  # noqa: E402
from vermilion.training.aed import train_aed  # noqa: E402
from vermilion.training.lid import LidOptions, train_lid  # noqa: E402
from vermilion.training.lines import Lines, Usable  # noqa: E402
from vermilion.training.options import DataOptions, TokenOptions  # noqa: E402
from vermilion.training.shards import pack  # noqa: E402
from vermilion.training.stream import SpeechStream  # noqa: E402

ANY = Usable(0.1, 30.0)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)


def listing(folder: Path, count: int, **more) -> Path:
    """A manifest of recordings that nobody opens."""
    place = folder / "list.jsonl"
    write_manifest(
        place,
        (
            Utterance(f"u{i}", str(folder / f"{i}.wav"), duration=0.5 + i % 7, text=f"t {i}", **more)
            for i in range(count)
        ),
    )
    return place


def read(path: Path, buffer: int, usable: Usable = ANY) -> Lines:
    return Lines(path, usable, buffer=buffer)


def ids(lines: Lines, epoch, seed=0) -> list[list[str]]:
    return [[u.id for u in lines.block(n, epoch, seed).utterances] for n in range(lines.blocks)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.integers(4, 40), st.integers(0, 3))
def test_each_line_comes_once_an_epoch_and_few_are_held(tmp_path_factory, count, buffer, epoch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 4)
        path = listing(tmp_path_factory.mktemp("l"), count)
        lines = read(path, buffer)
        blocks = ids(lines, epoch)
        assert sorted(i for block in blocks for i in block) == sorted(f"u{i}" for i in range(count))
        assert max(map(len, blocks)) <= buffer
        assert lines.in_memory == (count <= buffer)
        assert lines.count == count
        assert [u.id for u in lines] == [f"u{i}" for i in range(count)]
        assert ids(read(path, buffer), epoch) == blocks


def test_epochs_and_seeds_have_orders_of_their_own(tmp_path, small_chunks):
    lines = read(listing(tmp_path, 64), 8)
    assert not lines.in_memory
    assert len({json.dumps(ids(lines, epoch, seed)) for epoch in (0, 1) for seed in (0, 1)}) == 4
    assert sum(ids(lines, None), []) == [f"u{i}" for i in range(64)]


def test_lines_that_cannot_be_used_are_counted_and_stay_out(tmp_path, small_chunks):
    path = listing(tmp_path, 30)
    rows = path.read_text().splitlines()
    rows[3], rows[17], rows[20] = "{", "", json.dumps({"audio_filepath": "x.wav", "duration": 99, "id": "long"})
    path.write_text("\ufeff" + "\n".join(rows), encoding="utf8")
    for buffer in (8, 100):
        lines = read(path, buffer)
        assert lines.count == 27
        assert dict(lines.left_out) == {"line is no entry": 1, "longer than 30 s (--max-seconds)": 1}
        found = [u.id for u in lines]
        assert found == [f"u{i}" for i in range(30) if i not in (3, 17, 20)]
        facts = lines.facts
    assert read(path, 8).facts == facts
    rows[0] = rows[0].replace("t 0", "t o")
    path.write_text("\n".join(rows), encoding="utf8")
    assert read(path, 8).facts["digest"] != facts["digest"]


def test_other_kinds_of_manifests_are_held_whole(tmp_path, small_chunks):
    for name in ("wav.scp", "text"):
        (tmp_path / name).write_text("".join(f"u{i} {i}.wav\n" for i in range(20)))
    usable = replace(ANY, judge=lambda u: "")
    for i in range(20):
        corpus(tmp_path, 1, seed=i)
    (tmp_path / "wav.scp").write_text("".join(f"u{i} u{i}-0.wav\n" for i in range(20)))
    lines = Lines(tmp_path, usable, buffer=4)
    assert lines.in_memory
    assert lines.count == 20


def test_nothing_to_read_is_said(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ManifestError, match="lists no recording"):
        read(tmp_path / "empty.jsonl", 4)
    with pytest.raises(ManifestError, match="cannot read the manifest"):
        read(tmp_path / "none.jsonl", 4)


# ---- batches


def stream(manifest: Path, buffer: int, **more) -> SpeechStream:
    import numpy as np

    lines = Lines(manifest, ANY, buffer=buffer)
    return SpeechStream(
        lines, lambda us: [[5 + len(u.id)] for u in us], FeatureExtractor(np.zeros(80), np.ones(80)), DATA, **more
    )


def walk(data: SpeechStream, epoch: int, index: int, count: int, rank=0, world=1):
    found = data.training(torch.device("cpu"), rank, world)(epoch, index)
    out = []
    for _ in range(count):
        e, i, batch = next(found)
        out.append((e, i, batch.features, batch.lengths.tolist()))
    found.close()
    return out


def same(one, other) -> bool:
    return all(a[:2] == b[:2] and a[3] == b[3] and torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True))


def test_a_stream_can_be_taken_up_at_any_batch(tmp_path, small_chunks):
    manifest = corpus(tmp_path, 22)
    whole = walk(stream(manifest, 8), 0, 0, 14)
    assert {place[0] for place in whole} >= {0, 1}
    for at in range(1, len(whole)):
        epoch, index = whole[at - 1][:2]
        assert same(walk(stream(manifest, 8), epoch, index + 1, len(whole) - at), whole[at:])


def test_processes_share_a_stream_in_equal_numbers(tmp_path, small_chunks):
    manifest = corpus(tmp_path, 22)
    shares = [walk(stream(manifest, 8), 0, 0, 12, rank, 2) for rank in (0, 1)]
    assert [p[:2] for p in shares[0]] == [p[:2] for p in shares[1]]
    first = sum(len(p[3]) for share in shares for p in share if p[0] == 0)
    assert first == 22


def test_a_place_beyond_the_data_is_the_next_block(tmp_path, small_chunks):
    manifest = corpus(tmp_path, 22)
    assert walk(stream(manifest, 100), 0, 4000, 1)[0][:2] == (1, 0)


def test_validation_sees_everything_once(tmp_path, small_chunks):
    manifest = corpus(tmp_path, 22)
    batches = list(stream(manifest, 8).once(torch.device("cpu")))
    assert sum(len(b.items) for b in batches) == 22


def test_what_is_longer_than_a_batch_is_said_before_the_training(tmp_path, small_chunks):
    path = listing(tmp_path, 30)
    lines = [*read_manifest(path)[:29], Utterance("long", "x.wav", duration=29.0, text="t")]
    write_manifest(path, lines)
    with pytest.raises(TrainingError, match="an utterance of 29.0 s, 2901 frames"):
        stream(path, 8)


# ---- recipes


def test_recipes_train_on_streams_and_shards_exactly_as_long_as_they_like(tmp_path, monkeypatch):
    """In parts and in one: the same weights; a folder of shards is read as its index."""
    monkeypatch.setattr(module, "CHUNK", 4)
    manifest = corpus(tmp_path / "c", 22, language=True)
    pack(read_manifest(manifest), tmp_path / "shards", per_shard=5)
    data = replace(DATA, buffer=8)
    tiny = replace(TINY, width=16, encoder_layers=1, ctc_weight=0.0)

    def aed(name, steps):
        remarks = []
        train_aed(
            tmp_path / "shards", options=tiny, training=options(tmp_path / name, steps), data=data,
            tokens=TokenOptions(pieces=30), augment=QUIET, report=lambda p: remarks.append(p.what),
        )  # fmt: skip
        assert "8 lines at a time" in remarks[0]

    aed("whole", 12)
    for steps in (5, 12):
        aed("parts", steps)
    one, other = (read_checkpoint(tmp_path / name / "model").state for name in ("whole", "parts"))
    assert all(torch.equal(one[k], other[k]) for k in one)
    lid = LidOptions(preset="mini", encoder=tmp_path / "whole" / "model", decoder_layers=1, balance=1.0)
    assert train_lid(manifest, options=lid, training=options(tmp_path / "lid", 3), data=data).finished


def test_lines_beyond_the_buffer_cost_no_memory(tmp_path):
    """Ten times the lines: the same objects are held."""
    import tracemalloc

    held = []
    for count in (2000, 12000):
        path = listing(tmp_path, count)
        tracemalloc.start()
        lines = Lines(path, ANY, buffer=1000)
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/vermilion/*")])
        held.append(sum(trace.size for trace in ours.traces))  # not what threads of other tests do meanwhile
        tracemalloc.stop()
        assert lines.count == count
    assert held[1] < held[0] + 20_000
    assert DataOptions().buffer == 100_000
