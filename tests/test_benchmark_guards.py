"""The cuts and the judgement of benchmarks/guards.py."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vermilion.errors import AudioError
from vermilion.transcript import Failure, Recognition, Token, Word

HERE = Path(__file__).parent.parent / "benchmarks"
if not (HERE / "guards.py").is_file():
    pytest.skip("benchmarks/ is not part of this copy", allow_module_level=True)


@pytest.fixture(scope="module")
def guards():
    sys.path.insert(0, str(HERE))
    try:
        yield importlib.import_module("guards")
    finally:
        sys.path.remove(str(HERE))
        sys.modules.pop("guards", None)


@pytest.fixture
def material(guards, tmp_path):
    said = []
    for name, about in (("speech", {"text": "a tone"}), ("music", {"text": "", "condition": "music"})):
        samples = np.random.default_rng(len(said)).uniform(-0.5, 0.5, 8000)
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
        said.append({"audio_filepath": f"{name}.wav", **about})
    manifest = tmp_path / "all.jsonl"
    manifest.write_text("\n".join(map(json.dumps, said)), "utf-8")
    return guards.Material.of([manifest])


def recognition(ids, per_second=4.0, flags=()):
    tokens = [Token(i, str(i), 1.0, k / per_second, (k + 1) / per_second) for k, i in enumerate(ids)]
    return Recognition(" ".join(map(str, ids)), 1.0, tokens, flags=list(flags))


def test_cuts_are_the_same_again_finite_and_of_every_kind(guards, material):
    cuts = [guards.cut(n, 7, material) for n in range(150)]
    assert {kind for kind, _ in cuts} == set(guards.KINDS)
    for number, (kind, samples) in enumerate(cuts[:12]):
        assert kind == guards.cut(number, 7, material)[0]
        np.testing.assert_array_equal(samples, guards.cut(number, 7, material)[1])
    assert all(len(s) >= 1 and s.dtype == np.float32 and np.isfinite(s).all() for _, s in cuts)
    assert not np.array_equal(cuts[0][1], guards.cut(0, 8, material)[1])


def test_loops_are_found_wherever_they_stand(guards):
    assert list(guards.loops([1, 2, 3])) == []
    assert list(guards.loops([9, *[1, 2] * 5, 8])) == [(1, 11)]
    assert list(guards.loops([7] * 7)) == [], "seven noes are no loop"
    assert list(guards.loops([])) == []


def test_too_many_tokens_and_loops_whose_times_pile_up_are_runaway(guards):
    assert not guards.is_runaway(recognition(range(30)), 8.0)
    assert guards.is_runaway(recognition(range(60)), 1.0)
    assert guards.is_runaway(recognition([1, 2] * 8, per_second=25), 20.0)
    assert not guards.is_runaway(recognition([1, 2] * 12, per_second=1.5), 17.0), "said twelve times in 17 s"
    words = [Word("no", k * 0.04, k * 0.04 + 0.02) for k in range(12)]
    assert guards.is_runaway(Recognition("no " * 12, 1.0, [], words), 20.0)


def test_the_table_counts_what_no_flag_tells_of(guards):
    loop = recognition([1, 2] * 8, per_second=25)
    calm, cut_out = recognition([1, 2]), recognition([1, 2], flags=["repetition"])
    pairs = [(loop, loop), (cut_out, loop), (calm, calm), (calm, loop), (Failure("a", AudioError("no")), calm)]
    lines = [{"seconds": 20.0, **guards.verdict(*pair, 20.0)} for pair in pairs]
    found = guards.counts(lines)
    assert (found["cuts"], found["crashed"], found["runaway"]) == (5, 1, 1)
    assert (found["silent change"], found["bare runaway"], found["flags"]) == (1, 3, {"repetition": 1})
