"""Encoder, decoder and beam search, block by block."""

import json

import numpy as np
import pytest
import torch
from tiny import lively_decoder, randomise

from vermilion.decoding import DecodingOptions, beam_search
from vermilion.nn.conformer import ConformerConfig, ConformerEncoder, RelativeAttention, _relative_table
from vermilion.nn.decoder import DecoderConfig, TransformerDecoder

CONFIG = ConformerConfig(80, 16, 2, 2, 7)


@pytest.fixture(scope="module")
def encoder():
    return randomise(ConformerEncoder(CONFIG), 1)


@pytest.fixture(scope="module")
def decoder():
    return randomise(TransformerDecoder(DecoderConfig(12, 16, 2, 2)), 2)


def features(frames, seed=0):
    return torch.randn(frames, 80, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_encoder_batch_mates_change_nothing(encoder):
    items = [features(n, n) for n in (37, 120, 4, 1)]
    lengths = torch.tensor([len(x) for x in items])
    together, valid = encoder(torch.nn.utils.rnn.pad_sequence(items, batch_first=True), lengths)
    assert valid.tolist() == [10, 30, 1, 1]
    for i, item in enumerate(items):
        alone, n = encoder(item[None], torch.tensor([len(item)]))
        assert n.tolist() == [valid[i]]
        torch.testing.assert_close(together[i, : valid[i]], alone[0, : valid[i]], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_relative_attention_is_the_formula():
    attention = randomise(RelativeAttention(16, 2), 3)
    torch.nn.init.normal_(attention.pos_bias_u)
    torch.nn.init.normal_(attention.pos_bias_v)
    x = torch.randn(1, 9, 16)
    q = attention.w_qs(attention.layer_norm_q(x)).view(9, 2, 8)
    k = attention.w_ks(attention.layer_norm_k(x)).view(9, 2, 8)
    v = attention.w_vs(attention.layer_norm_v(x)).view(9, 2, 8)
    p = attention.linear_pos(_relative_table(9, 16)).view(17, 2, 8)
    out = torch.zeros(9, 2, 8)
    for h in range(2):
        score = torch.zeros(9, 9)
        for i in range(9):
            for j in range(9):
                content = (q[i, h] + attention.pos_bias_u[h]) @ k[j, h]
                score[i, j] = (content + (q[i, h] + attention.pos_bias_v[h]) @ p[8 - (i - j), h]) / 8**0.5
        out[:, h] = score.softmax(-1) @ v[:, h]
    expected = x + attention.fc(out.reshape(1, 9, 16))
    got = attention(x, _relative_table(9, 16), torch.zeros(1, 1, 1, 9))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_more_than_200_seconds_are_no_limit(encoder):
    encoded, lengths = encoder(features(20100)[None], torch.tensor([20100]))
    assert lengths.tolist() == [5025]
    assert torch.isfinite(encoded).all()


@torch.inference_mode()
def test_cached_steps_equal_the_full_pass(decoder):
    encoded, lengths = torch.randn(2, 7, 16), torch.tensor([7, 4])
    tokens = torch.randint(0, 12, (2, 3, 150))  # two utterances with three beams each, beyond one block of the cache
    state = decoder.start(decoder.remember(encoded, lengths))
    own, visible, steps = torch.eye(3, dtype=torch.bool).expand(2, -1, -1), torch.zeros(2, 3, 0, dtype=torch.bool), []
    for i in range(150):
        visible = torch.cat([visible, own], dim=-1)
        steps.append(decoder.extend(tokens[:, :, i], torch.full((2, 3), i), visible, state))
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    full = decoder(tokens.flatten(0, 1), decoder.remember(encoded[rows], lengths[rows]))
    torch.testing.assert_close(torch.stack(steps, dim=2).flatten(0, 1), full, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_rejected_draft_leaves_no_trace(decoder):
    memory = decoder.remember(torch.randn(1, 7, 16), torch.tensor([7]))
    state = decoder.start(memory)
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    decoder.extend(torch.tensor([[3, 5, 6, 7]]), torch.arange(4)[None], causal[None], state)
    visible = torch.tensor([[[True, True, False, False, True]]])  # 6 and 7 were rejected
    got = decoder.extend(torch.tensor([[9]]), torch.tensor([[2]]), visible, state)
    full = decoder(torch.tensor([[3, 5, 9]]), memory)
    torch.testing.assert_close(got[:, 0], full[:, 2], atol=1e-5, rtol=1e-5)


def slow_search(decoder, encoded, o, sos, eos, limit):
    """SPEC section 5 read line by line: one utterance, no caches, Python lists."""
    memory = decoder.remember(encoded, torch.tensor([encoded.shape[1]]))
    beams = [([sos], [], 0.0 if b == 0 else -1e10, False) for b in range(o.beam_size)]
    for _ in range(limit):
        candidates = []
        for tokens, chances, score, finished in beams:
            logits = decoder(torch.tensor([tokens]), memory)[0, -1]
            s = (logits / o.softmax_smoothing).log_softmax(-1)
            if o.eos_penalty != 1:
                s[eos] = o.eos_penalty * s[eos]
            best = s.topk(o.beam_size)
            values, ids = best.values.tolist(), best.indices.tolist()
            if finished:
                values, ids = [0.0] + [-1e10] * (o.beam_size - 1), [eos] * o.beam_size
            candidates += [
                (tokens + [i], [*chances, float(np.exp(v))], score + v, i == eos)
                for v, i in zip(values, ids, strict=True)
            ]
        beams = sorted(candidates, key=lambda c: -c[2])[: o.beam_size]
        if all(b[3] for b in beams):
            break
    ranked = []
    for tokens, chances, score, _ in beams:
        kept = [(t, c) for t, c in zip(tokens[1:], chances, strict=True) if t != eos]
        ranked.append((score / ((5 + len(kept) + 1) / 6) ** o.length_penalty, kept))
    return sorted(ranked, key=lambda r: -r[0])[: o.nbest]


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(beam_size=1, softmax_smoothing=1.0, length_penalty=0.0),
        DecodingOptions(beam_size=3, nbest=3),
        DecodingOptions(beam_size=4, nbest=2, eos_penalty=0.6, length_penalty=1.5, max_tokens=5),
    ],
)
def test_beam_search_equals_a_slow_reading_of_the_rules(seed, options):
    decoder = lively_decoder(12, seed)
    lengths = torch.tensor([9, 5, 7])
    encoded = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(seed))
    found = beam_search(decoder, encoded, lengths, options, sos=3, eos=4)
    for i, n in enumerate(lengths.tolist()):
        expected = slow_search(decoder, encoded[i : i + 1, :n], options, 3, 4, options.max_tokens or n)
        assert [h.ids for h in found[i]] == [[t for t, _ in kept] for _, kept in expected]
        for hypothesis, (score, kept) in zip(found[i], expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-3)
            assert hypothesis.probabilities == pytest.approx([c for _, c in kept], abs=1e-4)


@torch.inference_mode()
def test_forbidden_tokens_are_never_emitted_and_nothing_gives_zero_confidence(decoder):
    encoded, lengths = torch.randn(4, 30, 16), torch.tensor([30, 30, 20, 10])
    forbidden = {0, 2, 3, 7, 8}
    for nbest in beam_search(decoder, encoded, lengths, DecodingOptions(), sos=3, eos=4, forbidden=forbidden):
        assert not forbidden & {t for h in nbest for t in h.ids}
    hasty = DecodingOptions(eos_penalty=1e-4)
    assert beam_search(decoder, encoded, lengths, hasty, sos=3, eos=4)[0][0].confidence == 0.0


@torch.inference_mode()
def test_a_vocabulary_smaller_than_the_beam(decoder):
    small = randomise(TransformerDecoder(DecoderConfig(5, 16, 2, 1)), 0)
    found = beam_search(small, torch.randn(1, 6, 16), torch.tensor([6]), DecodingOptions(beam_size=8), sos=3, eos=4)
    assert len(found[0]) == 1


def test_the_published_encoder(golden):
    from vermilion.checkpoints.reader import read_checkpoint
    from vermilion.encoding import load_encoder
    from vermilion.runtime import Runtime

    case = next(
        c for c in json.loads((golden / "manifest.json").read_text())["cases"] if c["id"] == "encoder/AED__batch"
    )
    folder = golden / "checkpoints" / case["checkpoint"]
    network = load_encoder(read_checkpoint(folder), Runtime.of())
    from vermilion.audio import FeatureExtractor, load_audio

    extractor, arrays = FeatureExtractor.from_cmvn(folder / "cmvn.ark"), np.load(golden / case["arrays"])
    rows = [torch.from_numpy(extractor(load_audio(golden / a))) for a in case["inputs"]["audio"]]
    with torch.inference_mode():
        encoded, lengths = network(
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(r) for r in rows])
        )
    assert lengths.tolist() == arrays["lengths"].tolist()
    for i, n in enumerate(lengths.tolist()):
        np.testing.assert_allclose(encoded[i, :n].numpy(), arrays["enc"][i, :n], atol=1e-3)
