"""The recogniser on damaged or odd models and recordings: DEFECTS.md row by row, the language model, the joins."""

import io
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import AED_TOKENS, noise, randomise, save, write_aed

from vermilion.asr import AedRecognizer, DecodingOptions
from vermilion.asr.long_form import GRID, joined, pieces_of
from vermilion.audio import num_frames
from vermilion.decoding.beam import BeamHypothesis
from vermilion.errors import AudioError, CheckpointError, ModelError, OptionsError
from vermilion.nn.lstm_lm import LstmConfig, LstmLanguageModel
from vermilion.transcript import Failure, Hypothesis, Recognition, Token, Word

SIZE = len(AED_TOKENS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return write_aed(tmp_path_factory.mktemp("aed"))


@pytest.fixture(scope="module")
def recognizer(folder):
    return AedRecognizer.from_pretrained(folder)


def changed(folder, target, change):
    """A copy of a checkpoint with something changed in it."""
    data = torch.load(folder / "model.pth.tar", weights_only=False)
    change(data["args"], data["model_state_dict"])
    target.mkdir(exist_ok=True)
    for name in ("dict.txt", "cmvn.ark"):
        (target / name).write_bytes((folder / name).read_bytes())
    torch.save(data, target / "model.pth.tar")
    return target


def pcm(samples, rate=16000, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as w:
        w.setnchannels(channels)
        w.setsampwidth(2)
        w.setframerate(rate)
        w.writeframes(np.repeat((samples * 32767).astype("<i2"), channels).tobytes())
    return file.getvalue()


def emitted(recognizer, *tokens, duration=2.0, posterior=None):
    """The recognition of a hypothesis with the given tokens, 0.5 probable each."""
    ids = [AED_TOKENS.index(t) for t in tokens]
    hypothesis = BeamHypothesis(ids, [0.5] * len(ids), -1.0, True)
    return recognizer._recognition([hypothesis], duration, posterior, True)


# ---- DEFECTS.md, audio


def test_every_form_of_one_recording_gives_one_answer(recognizer):
    samples = noise(1.5)
    whole = (samples * 32767).astype(np.int16)
    forms = [whole, (whole, 16000), pcm(samples), io.BytesIO(pcm(samples, channels=2)), whole / np.float32(32768)]
    results = recognizer.recognize(forms)
    assert all(isinstance(r, Recognition) for r in results)
    assert len({r.text for r in results}) == 1
    assert results[0].text


def test_the_wrong_order_of_a_pair_is_named(recognizer):
    (result,) = recognizer.recognize([(16000, noise(1.0))])
    assert isinstance(result, Failure)
    assert isinstance(result.error, AudioError)


# ---- DEFECTS.md, asr


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_less_than_a_frame_has_the_fields_of_any_result(recognizer, samples):
    (result,) = recognizer.recognize(
        [np.zeros(samples, np.float32) if samples else pcm(np.zeros(0))], DecodingOptions()
    )
    assert result == Recognition("", 0.0, alternatives=[Hypothesis("", 0.0)], model="FireRedASR2-AED")


def test_one_frame_is_enough(recognizer):
    (result,) = recognizer.recognize([noise(0.025)])
    assert isinstance(result, Recognition)
    assert len(result.tokens) <= 1


def test_200_seconds_are_no_limit(recognizer):
    samples = np.tile(noise(5.0), 41)
    result, short = recognizer.recognize([samples, noise(0.5)], DecodingOptions(beam_size=1, max_tokens=20))
    assert result.tokens[-1].end > 190
    assert isinstance(short, Recognition)
    whole = recognizer.recognize([samples], DecodingOptions(beam_size=1, max_tokens=3, max_segment_seconds=1000))
    assert len(whole[0].tokens) <= 3


def test_a_hypothesis_without_tokens_has_confidence_zero(recognizer):
    (result,) = recognizer.recognize([noise(1.0)], DecodingOptions(eos_penalty=1e-4))
    assert (result.text, result.confidence, result.tokens, result.words) == ("", 0.0, [], [])


def test_silence_marks_are_in_no_text_and_no_times(recognizer):
    posterior = np.full((50, SIZE), -5.0, np.float32)
    posterior[:, 0] = -1.0
    for frame, token in ((5, "<sil>"), (20, "你"), (21, "<sil>"), (40, "好")):
        posterior[frame, [0, AED_TOKENS.index(token)]] = -5.0, 0.0
    result = emitted(recognizer, "<sil>", "你", "<sil>", "好", posterior=posterior)
    assert result.text == "你好"
    assert [w.text for w in result.words] == [t.text for t in result.tokens] == ["你", "好"]
    # the marks were aligned too: the times of the others are their own
    assert result.words[0].start == pytest.approx(20 * 0.04 - 0.02, abs=1e-3)
    assert result.words[1].start == pytest.approx(40 * 0.04 - 0.02, abs=1e-3)
    only = emitted(recognizer, "<sil>", posterior=posterior)
    assert (only.text, only.words, only.tokens, only.alternatives[0].tokens) == ("", [], [], [])


def test_a_lone_word_mark_is_no_word(recognizer):
    result = emitted(recognizer, "▁", "你", "▁", "S")
    assert [w.text for w in result.words] == ["你", "s"]


def test_all_readings_leave_out_silence(recognizer):
    best, second = (BeamHypothesis([5, 6], [0.9, 0.7], -1.0, True) for _ in range(2))
    result = recognizer._recognition([best, second], 1.0, None, True)
    assert [[t.text for t in h.tokens] for h in result.alternatives] == [["你"], ["你"]]
    assert result.alternatives[0].tokens == result.tokens


def test_special_tokens_are_never_emitted(folder, tmp_path):
    def prefer(args, state):  # logits are products with the embedding: blow up the special ones
        state["decoder.tgt_word_emb.weight"][:4] *= 50

    eager = AedRecognizer.from_pretrained(changed(folder, tmp_path / "eager", prefer))
    for result in eager.recognize([noise(1.0), noise(2.0, 1)], DecodingOptions(nbest=3)):
        found = {t.id for h in result.alternatives for t in h.tokens}
        assert not found & {0, 2, 3, 4}


def test_more_tokens_than_64_are_aligned(recognizer):
    posterior = np.random.default_rng(0).normal(size=(400, SIZE)).astype(np.float32)
    result = emitted(recognizer, *["你", "好"] * 60, duration=16.0, posterior=posterior)
    assert len(result.words) == 120
    assert result.words[-1].start != pytest.approx(119 * 16 / 120)  # not merely spread


# ---- models that cannot work


@pytest.mark.parametrize("key", ["encoder.layer_stack.0.layer_norm.weight", "decoder.layer_norm_out.weight"])
def test_values_that_are_no_numbers_are_failures(folder, tmp_path, key):
    def damage(args, state):
        state[key][:] = float("nan")

    broken = AedRecognizer.from_pretrained(changed(folder, tmp_path / "nan", damage))
    results = broken.recognize([noise(1.0), noise(0.01), noise(0.5)])
    assert [type(r) for r in results] == [Failure, Recognition, Failure]
    assert all(isinstance(r.error, ModelError) and "finite" in str(r.error) for r in (results[0], results[2]))
    if key.startswith("encoder"):
        with pytest.raises(ModelError, match="finite"):
            broken.align(noise(1.0), "你好")


def test_start_and_end_may_share_an_id_but_not_leave_the_vocabulary(folder, tmp_path):
    def shared(args, state):
        args.sos_id = args.eos_id

    def outside(args, state):
        args.eos_id = 99

    one = AedRecognizer.from_pretrained(changed(folder, tmp_path / "shared", shared))
    assert one.recognize([noise(1.0)], DecodingOptions(eos_penalty=1e-4))[0].tokens == []  # it can still end
    with pytest.raises(CheckpointError, match="99"):
        AedRecognizer.from_pretrained(changed(folder, tmp_path / "outside", outside))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_scores_in_single(folder, precision):
    half = AedRecognizer.from_pretrained(folder, precision=precision)
    (result,) = half.recognize([noise(1.0)])
    assert 0 < result.confidence <= 1
    assert half.ctc_log_probs(noise(1.0)).dtype == np.float32


# ---- language model


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    args = {"idim": SIZE, "odim": SIZE, "embedding_dim": 6, "hidden_size": 6, "num_layers": 2, "tie_weights": False}
    torch.manual_seed(3)
    network = randomise(LstmLanguageModel(LstmConfig(SIZE, 6, 2)), 3)
    network.fc.bias.data[AED_TOKENS.index("界")] = 20.0  # it knows one word
    save(folder / "model.pth.tar", args, network.state_dict())
    return folder


def test_a_language_model_is_heard_by_its_weight(folder, lm_folder, recognizer):
    with_lm = AedRecognizer.from_pretrained(folder, lm_dir=lm_folder)
    sources = [noise(1.0), noise(2.0, 1)]
    for a, b in zip(with_lm.recognize(sources), recognizer.recognize(sources), strict=True):
        assert a == b  # weight 0 by default
    heavy = with_lm.recognize(sources, DecodingOptions(lm_weight=5.0, max_tokens=6, guards=False))
    assert [set(r.text) for r in heavy] == [{"界"}, {"界"}]
    with pytest.raises(OptionsError, match="lm_dir"):
        recognizer.recognize(sources, DecodingOptions(lm_weight=0.1))


def test_a_language_model_of_another_vocabulary_is_refused(folder, lm_folder, tmp_path):
    network = LstmLanguageModel(LstmConfig(7, 6, 1))
    args = {"idim": 7, "odim": 7, "embedding_dim": 6, "hidden_size": 6, "num_layers": 1, "tie_weights": True}
    save(tmp_path / "model.pth.tar", args, network.state_dict())
    with pytest.raises(CheckpointError, match=f"7 tokens, the recogniser has {SIZE}"):
        AedRecognizer.from_pretrained(folder, lm_dir=tmp_path)


# ---- the encoder and the CTC head for others


def test_encode_and_posteriors(recognizer):
    samples = noise(1.3)
    encoded, lengths = recognizer.encode([samples, (noise(0.4), 16000)])
    frames = -(-num_frames(len(samples)) // 4)
    assert (encoded.shape[:2], lengths.tolist()[0]) == ((2, frames), frames)
    log_probs = recognizer.ctc_log_probs(samples)
    assert log_probs.shape == (frames, len(recognizer.vocabulary))
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1.0, atol=1e-4)
    assert recognizer.ctc_log_probs(samples[:100]).shape == (0, SIZE)
    with pytest.raises(AudioError, match="25 ms"):
        recognizer.encode([samples, samples[:100]])


def test_a_text_is_aligned_to_minutes_of_audio(recognizer):
    samples = np.tile(noise(5.0), 27)  # 135 s: three pieces
    words = recognizer.align(samples, "“你好”，世界！" * 20)
    assert "".join(w.text for w in words) == "“你好”，世界！" * 20
    assert all(0 <= w.start <= w.end <= 135 and 0 <= w.confidence <= 1 for w in words)
    assert all(a.start <= b.start for a, b in zip(words, words[1:], strict=False))
    assert len(recognizer.ctc_log_probs(samples)) == -(-num_frames(len(samples)) // 4)  # no frame lost at the cuts


def test_a_text_that_cannot_be_spelled_is_named(recognizer):
    for text in ("", "...", "“！？”"):
        with pytest.raises(OptionsError, match="no word"):
            recognizer.align(noise(1.0), text)


# ---- long audio


@pytest.mark.parametrize("seconds", [3.0, 3.0001, 7.3, 31.0])
def test_pieces_follow_each_other_on_the_grid(seconds):
    samples = noise(seconds)
    pieces = pieces_of(samples, 3.0)
    assert np.array_equal(np.concatenate([p for _, p in pieces]), samples)
    assert [start for start, _ in pieces] == np.cumsum([0, *(len(p) for _, p in pieces[:-1])]).tolist()
    assert all(start % GRID == 0 for start, _ in pieces)
    assert all(0 < len(p) <= 48000 for _, p in pieces)


def recognition(text, confidence, start):
    tokens = [Token(9, text, confidence, start, start + 0.2)]
    return Recognition(text, confidence, tokens, [Word(text, start, start + 0.2, confidence)], model="m")


def test_joined_recognitions():
    three = replace(recognition("b c", 0.9, 0.0), tokens=[Token(1, "b", 0.9), *recognition("c", 0.9, 0.1).tokens])
    parts = [
        (0.0, recognition("a", 0.3, 0.1)),
        (10.04, three),
        (20.0, Recognition("", 0.0)),
        (30.0, recognition("你", 0.6, 0.5)),
    ]
    whole = joined(parts)
    assert whole.text == "a b c你"
    assert whole.confidence == pytest.approx((0.3 + 0.9 * 2 + 0.6) / 4)
    assert [w.start for w in whole.words] == [0.1, 10.04, 30.5]
    assert [t.start for t in whole.tokens] == [0.1, None, 10.14, 30.5]
    assert whole.alternatives == [Hypothesis(whole.text, whole.confidence, whole.tokens)]
    assert joined([(0.0, Recognition("", 0.0)), (9.0, Recognition("", 0.0))]).confidence == 0.0


def test_a_piece_that_fails_is_not_dropped_in_silence(recognizer, monkeypatch):
    encode = recognizer.front.encode
    seen = []

    def fragile(batch):
        seen.append(len(batch))
        if any(2 * 16000 < len(u.samples) < 2.9 * 16000 for u in batch):
            raise RuntimeError("out of memory")
        return encode(batch)

    monkeypatch.setattr(recognizer.front, "encode", fragile)
    assert any(2.0 < len(p) / 16000 < 2.9 for _, p in pieces_of(noise(8.0), 3.0))
    results = recognizer.recognize([noise(8.0), noise(1.0)], DecodingOptions(max_segment_seconds=3.0))
    assert isinstance(results[0], Failure)
    assert isinstance(results[1], Recognition)
    assert len(seen) > 1
