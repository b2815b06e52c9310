"""Search over a causal language model: against a slow reference, in batches, with penalties, loops."""

import math

import pytest
import torch

from vermilion.decoding.generation import generate, is_loop, without_loop
from vermilion.decoding.options import DecodingOptions

VOCABULARY, END = 9, 3


class Scripted:
    """A model whose next token depends on the text so far, and on which utterance it is."""

    def __init__(self, seeds, sharpness=1.5):
        self.texts = [(seed, ()) for seed in seeds]
        self.sharpness = sharpness

    def logits(self, text):
        generator = torch.Generator().manual_seed(hash((text[0], *text[1])) % (1 << 31))
        return self.sharpness * torch.randn(VOCABULARY, generator=generator)

    def start(self):
        return torch.stack([self.logits(t) for t in self.texts])

    def advance(self, tokens):
        self.texts = [(s, (*t, i)) for (s, t), i in zip(self.texts, tokens.tolist(), strict=True)]
        return self.start()

    def select(self, rows):
        self.texts = [self.texts[i] for i in rows.tolist()]


def search(seeds, options, limits, **more):
    model = Scripted(seeds)
    return generate(model.start(), model, options, end=END, limits=limits, **more)


def reference(seed, options, limit):
    """The rules of SPEC section 12 for one utterance, written as lists."""
    model, beams = Scripted([seed]), options.beam_size
    open_, closed = [((), 0.0)], []
    for n in range(1, limit + 1):
        candidates = []
        for text, total in open_:
            logits = model.logits((seed, text))
            scores = logits.log_softmax(0)
            if beams == 1:
                for token in set(text):
                    x = logits[token]
                    logits[token] = x / options.repetition_penalty if x > 0 else x * options.repetition_penalty
                scores = logits.log_softmax(0)
            for token, score in enumerate(scores.tolist()):
                if beams > 1 and token in text:
                    score *= options.repetition_penalty
                if token == END and n <= options.min_tokens:
                    score = -math.inf
                candidates.append((total + score, text, token))
        ranked = sorted(candidates, key=lambda c: -c[0])[: 2 * beams]
        norm = n**options.llm_length_penalty
        closed += [(s / norm, t, True) for s, t, token in ranked[:beams] if token == END]
        closed = sorted(closed, key=lambda c: -c[0])[:beams]
        open_ = [((*t, token), s) for s, t, token in ranked if token != END][:beams]
        if len(closed) == beams and closed[-1][0] >= ranked[0][0] / norm:
            break
    else:
        closed += [(s / limit**options.llm_length_penalty, t, False) for t, s in open_]
        closed = sorted(closed, key=lambda c: -c[0])[:beams]
    return closed


SETTINGS = [
    {"beam_size": 1},
    {"beam_size": 2},
    {"beam_size": 3, "nbest": 3},
    {"beam_size": 4, "llm_length_penalty": 1.0, "nbest": 4},
    {"beam_size": 3, "llm_length_penalty": 0.5, "repetition_penalty": 1.3},
    {"beam_size": 1, "repetition_penalty": 3.0},
    {"beam_size": 2, "min_tokens": 4},
    {"beam_size": 1, "min_tokens": 3},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("limit", [1, 5, 14])
def test_equal_to_the_rules_written_as_lists(setting, limit):
    options = DecodingOptions(**setting)
    for seed in range(12):
        [found] = search([seed], options, [limit], stop_loops=False)
        expected = reference(seed, options, limit)[: options.nbest]
        assert [tuple(h.ids) for h in found.hypotheses] == [t for _, t, _ in expected]
        assert [h.score for h in found.hypotheses] == pytest.approx([s for s, _, _ in expected], abs=1e-4)
        assert [h.finished for h in found.hypotheses] == [f for *_, f in expected]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_batch_gives_the_answers_of_single_utterances(setting):
    options = DecodingOptions(**setting)
    seeds, limits = list(range(20, 30)), [3, 14, 1, 9, 30, 2, 14, 7, 5, 11]
    together = search(seeds, options, limits)
    for seed, limit, found in zip(seeds, limits, together, strict=True):
        assert found == search([seed], options, [limit])[0]


def test_greedy_is_a_beam_of_one():
    options = DecodingOptions(search="greedy", beam_size=3)
    for seed in range(5):
        assert search([seed], options, [10]) == search([seed], DecodingOptions(beam_size=1), [10])


def test_probabilities_are_those_of_the_model():
    options = DecodingOptions(beam_size=1, repetition_penalty=2.0)
    for seed in range(5):
        [found] = search([seed], options, [6])
        [best] = found.hypotheses
        model = Scripted([seed])
        for n, (token, chance) in enumerate(zip(best.ids, best.probabilities, strict=True)):
            assert chance == pytest.approx(float(model.logits((seed, tuple(best.ids[:n]))).softmax(0)[token]), abs=1e-5)


class Parrot:
    """Says the same few tokens for ever."""

    def __init__(self, unit):
        self.unit, self.said, self.rows = unit, 0, 1

    def start(self):
        logits = torch.full((self.rows, VOCABULARY), -5.0)
        logits[:, self.unit[self.said % len(self.unit)]] = 5.0
        return logits

    def advance(self, tokens):
        self.said, self.rows = self.said + 1, len(tokens)
        return self.start()

    def select(self, rows):
        pass


@pytest.mark.parametrize("unit", [[4], [4, 5], [6, 7, 8, 4, 5, 1]])
def test_a_loop_is_given_up(unit):
    model = Parrot(unit)
    [found] = generate(model.start(), model, DecodingOptions(beam_size=1), end=END, limits=[4000])
    assert found.looped
    assert len(found.hypotheses[0].ids) <= 64
    assert without_loop(found.hypotheses[0].ids)[: len(unit)] == unit
    assert len(without_loop(found.hypotheses[0].ids)) < 2 * len(unit)
    [limited] = generate(Parrot(unit).start(), Parrot(unit), DecodingOptions(beam_size=1), end=END, limits=[30])
    assert limited.looped, "also where the limit comes between two looks"
    [ended] = generate(Parrot(unit).start(), Parrot(unit), DecodingOptions(beam_size=1), end=END, limits=[10])
    assert not ended.looped


def test_what_a_loop_is():
    assert is_loop([1, 2] * 12)
    assert is_loop([5, 6, *([7] * 24)])
    assert not is_loop([7] * 10)
    assert not is_loop(list(range(60)))
    assert not is_loop([1, 2, 3] * 3)
    assert without_loop([9, 8, *([1, 2, 3] * 6)]) == [9, 8, 1, 2, 3]
    assert without_loop([9, 8, 7]) == [9, 8, 7]
    assert without_loop([]) == []
