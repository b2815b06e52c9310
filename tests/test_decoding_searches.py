"""Drafted greedy search, CTC search and rescoring: against the plain search and brute force."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from tiny import lively_decoder, noise, write_aed

from vermilion.asr import AedRecognizer, DecodingOptions
from vermilion.decoding import draft
from vermilion.decoding.beam import beam_search
from vermilion.decoding.ctc import greedy_path, prefix_beam_search
from vermilion.decoding.rescoring import CTC_WEIGHT, rescored_search
from vermilion.errors import OptionsError

SYMBOLS = {"sos": 3, "eos": 4, "forbidden": {0, 2, 3}}


@pytest.fixture
def passes(monkeypatch):
    """Counts the utterances of all passes of the drafted search."""
    counted = [0]
    check = draft._check

    def counting(decoder, state, texts, *rest):
        counted[0] += len(texts)
        return check(decoder, state, texts, *rest)

    monkeypatch.setattr(draft, "_check", counting)
    return counted


def utterances(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 30, 16, generator=generator), torch.tensor([30, 12, 1, 25])


def one(**options):
    return DecodingOptions(beam_size=1, **options)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "options", [one(), one(softmax_smoothing=0.7, length_penalty=1.2, eos_penalty=1.8), one(max_tokens=7)]
)
def test_any_draft_gives_the_greedy_text(seed, options):
    decoder = lively_decoder(12, seed)
    encoded, lengths = utterances(seed)
    plain = beam_search(decoder, encoded, lengths, options, **SYMBOLS)
    rng = np.random.default_rng(seed)
    right = [list(h[0].ids) for h in plain]
    wrong = [rng.integers(5, 12, 20).tolist() for _ in plain]
    shaken = [[t for t in ids if rng.random() > 0.2] + [7] for ids in right]
    for drafts in (right, wrong, shaken, [[]] * 4, [ids + ids for ids in right]):
        found = draft.drafted_greedy_search(decoder, encoded, lengths, options, drafts, **SYMBOLS)
        for (got,), (expected,) in zip(found, plain, strict=True):
            assert got.ids == expected.ids
            assert got.finished == expected.finished
            assert got.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
            assert got.score == pytest.approx(expected.score, abs=1e-4)


def test_a_right_draft_takes_one_pass_and_a_local_error_one_more(passes):
    decoder = lively_decoder(40, 2)
    encoded, lengths = utterances(2)[0][:1], torch.tensor([30])
    options = one(max_tokens=24)
    ((expected,),) = beam_search(decoder, encoded, lengths, options, **SYMBOLS)
    ids = expected.ids
    assert len(set(ids)) > 4
    drafts = {
        "right": ids,
        "a token missing": ids[:4] + ids[5:],
        "a token too many": [*ids[:4], 39, *ids[4:]],
        "a wrong token": [*ids[:4], 39, *ids[5:]],
    }
    taken = {}
    for name, proposed in drafts.items():
        passes[0] = 0
        ((found,),) = draft.drafted_greedy_search(decoder, encoded, lengths, options, [proposed], **SYMBOLS)
        assert found.ids == ids
        taken[name] = passes[0]
    assert taken["right"] == 1
    assert max(taken.values()) <= 3


def posteriors(frames, labels, seed):
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(labels), frames)).astype(np.float32)


def test_greedy_path_merges_repeats_and_drops_blanks():
    frames = [0, 5, 5, 0, 5, 6, 6, 2]
    log_probs = np.full((len(frames), 8), np.log(0.05), dtype=np.float32)
    log_probs[np.arange(len(frames)), frames] = np.log(0.65)
    log_probs[2, 5] = np.log(0.9)
    path = greedy_path(log_probs)
    assert path.ids == [5, 5, 6, 2]
    assert path.probabilities == pytest.approx([0.9, 0.65, 0.65, 0.65], abs=1e-5)
    assert path.score == pytest.approx(7 * math.log(0.65) + math.log(0.9), abs=1e-4)
    assert greedy_path(log_probs, forbidden={2}).ids[:3] == [5, 5, 6]
    assert 2 not in greedy_path(log_probs, forbidden={2}).ids


@pytest.mark.parametrize("seed", range(5))
def test_prefix_beam_search_equals_the_sum_over_all_paths(seed):
    log_probs = posteriors(5, 4, seed)
    totals: dict[tuple, float] = {}
    for path in itertools.product(range(4), repeat=5):
        labels = tuple(k for k, _ in itertools.groupby(path) if k)
        totals[labels] = totals.get(labels, 0.0) + math.exp(sum(float(log_probs[t, k]) for t, k in enumerate(path)))
    best = sorted(totals.items(), key=lambda item: -item[1])[:4]
    found = prefix_beam_search(log_probs, 60)[:4]
    assert [tuple(ids) for ids, _ in found] == [ids for ids, _ in best]
    assert [math.exp(score) for _, score in found] == pytest.approx([p for _, p in best], abs=1e-5)


@torch.inference_mode()
def test_rescoring_adds_the_scores_of_decoder_and_ctc():
    decoder = lively_decoder(12, 2)
    encoded, lengths = utterances(2)
    rows = [posteriors(n, 12, i) for i, n in enumerate(lengths.tolist())]
    options = DecodingOptions(nbest=3)
    found = rescored_search(decoder, encoded, lengths, options, rows, **SYMBOLS)
    for i, hypotheses in enumerate(found):
        memory = decoder.remember(encoded[i : i + 1, : lengths[i]], lengths[i : i + 1])
        expected = []
        for ids, ctc in prefix_beam_search(rows[i], 8, {0, 2, 3, 4}):
            scores = (decoder(torch.tensor([[3, *ids]]), memory)[0] / 1.25).log_softmax(-1)
            total = float(sum(scores[k, t] for k, t in enumerate([*ids, 4]))) + CTC_WEIGHT * ctc
            expected.append((total / ((6 + len(ids)) / 6) ** 0.6, ids))
        expected.sort(key=lambda e: -e[0])
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected[:3]]
        assert [h.score for h in hypotheses] == pytest.approx([s for s, _ in expected[:3]], abs=1e-4)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return AedRecognizer.from_pretrained(write_aed(tmp_path_factory.mktemp("aed")))


@pytest.mark.parametrize("search", ["beam", "greedy", "rescore", "ctc"])
def test_every_search_gives_whole_results_whatever_the_batch(recognizer, search):
    audio = [(noise(s, i), 16000) for i, s in enumerate((1.0, 0.3, 2.2))]
    options = DecodingOptions(search=search)
    together = recognizer.recognize(audio, options)
    for recording, result in zip(audio, together, strict=True):
        alone = recognizer.recognize([recording], options)[0]
        assert (result.text, [t.id for t in result.tokens]) == (alone.text, [t.id for t in alone.tokens])
        assert result.confidence == pytest.approx(alone.confidence, abs=1e-4)
        assert [w.start for w in result.words] == [w.start for w in alone.words]
        assert 0 <= result.confidence <= 1
    texts = [r.text for r in together]
    if search == "greedy":
        assert texts == [r.text for r in recognizer.recognize(audio, one())]


def test_searches_that_are_not_possible_say_so(recognizer, tmp_path):
    with pytest.raises(OptionsError, match="search must be one of"):
        DecodingOptions(search="fast")
    plain = AedRecognizer.from_pretrained(write_aed(tmp_path, ctc=False))
    audio = [(noise(1.0), 16000)]
    for search in ("rescore", "ctc"):
        with pytest.raises(OptionsError, match="without a CTC head"):
            plain.recognize(audio, DecodingOptions(search=search))
    greedy = plain.recognize(audio, DecodingOptions(search="greedy"))[0]  # undrafted, the same answer
    assert greedy.text == plain.recognize(audio, one())[0].text


KNOWN = ("command_zh", "hello_zh", "hello_en", "meeting_zh", "net_zh1", "read_zh", "syn_en1", "syn_en2", "syn_en3")
"""golden recordings of what the trained golden models were trained on"""


@pytest.mark.parametrize("name", ["FireRedASR2-AED", "FireRedASR2-AED-k15"])
def test_trained_models_need_an_eighth_of_the_passes(golden, passes, name):
    recognizer = AedRecognizer.from_pretrained(golden / "checkpoints" / name)
    files = sorted((golden / "audio").rglob("*.wav"))
    known = [f for f in files if f.stem in KNOWN]
    plain = recognizer.recognize(files, one())
    drafted = recognizer.recognize(files, DecodingOptions(search="greedy"))
    assert [[t.id for t in r.tokens] for r in drafted] == [[t.id for t in r.tokens] for r in plain]
    passes[0] = 0
    steps = sum(len(r.tokens) + 1 for r in recognizer.recognize(known, DecodingOptions(search="greedy")))
    assert passes[0] <= steps / 8, json.dumps({"passes": passes[0], "steps": steps})
