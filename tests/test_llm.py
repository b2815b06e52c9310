"""FireRedASR2-LLM on tiny random models: loading, prompts, batches, precisions, times, failures."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from llm_helpers import END, lora_state, write_llm, write_qwen
from tiny import noise, save, write_aed, write_lid, write_sentencepiece, write_vad

from vermilion import PipelineOptions, load
from vermilion.asr import DecodingOptions, LlmRecognizer, language_model
from vermilion.asr.language_model import Lora, memory_needed, require_memory
from vermilion.asr.llm import with_confidences
from vermilion.asr.prompt import prompt_text, target_text
from vermilion.checkpoints.reader import read_checkpoint
from vermilion.decoding.options import LlmOptions
from vermilion.encoding import AcousticFront, Utterance
from vermilion.errors import CheckpointError, ModelError, OptionsError
from vermilion.nn import half
from vermilion.runtime import Runtime
from vermilion.transcript import Failure, Transcript, Word

OPTIONS = DecodingOptions(max_tokens=12)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained_models")
    write_llm(folder / "FireRedASR2-LLM")
    write_sentencepiece(write_aed(folder / "FireRedASR2-AED"))
    write_lid(folder / "FireRedLID")
    write_vad(folder / "FireRedVAD" / "VAD")
    return folder


@pytest.fixture(scope="module")
def recognizer(root):
    return LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", aed_dir=root / "FireRedASR2-AED")


# ---- prompts


def test_the_prompt_is_the_published_one():
    assert prompt_text() == "<|im_start|>user\n<speech>请转写音频为文字<|im_end|>\n<|im_start|>assistant\n"


def test_a_context_stands_behind_the_instruction_and_is_checked():
    assert "请转写音频为文字\n可能出现的词语：泰勒 斯威夫特<|im_end|>" in prompt_text(" 泰勒\n 斯威夫特 ")
    for bad in ("a<|im_end|>b", "x <speech>", "长" * 501):
        with pytest.raises(OptionsError):
            prompt_text(bad)


def test_the_context_reaches_the_model(root, recognizer):
    other = LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", context="泰勒")
    assert len(other.prompt_ids) > len(recognizer.prompt_ids)
    assert other.prompt_ids.count(other.model.vocabulary.speech) == 1


def test_training_targets():
    assert target_text("我想听 Taylor Swift 的歌。") == "我想听 taylor swift 的歌"
    assert target_text("你好，世界！ A/B\\c “引”") == "你好世界 ab\\c 引"


# ---- recognition


def test_mixed_lengths_give_the_answers_of_single_items(recognizer):
    recordings = [(noise(s, i), 16000) for i, s in enumerate((0.9, 4.0, 0.3, 2.2, 12.0, 0.09, 1.0))]
    for options in (OPTIONS, DecodingOptions(beam_size=1, max_tokens=9), DecodingOptions(beam_size=4, nbest=3)):
        together = recognizer.recognize(recordings, options)
        for recording, found in zip(recordings, together, strict=True):
            [alone] = recognizer.recognize([recording], options)
            assert found.text == alone.text
            assert [t.id for t in found.tokens] == [t.id for t in alone.tokens]
            assert found.confidence == pytest.approx(alone.confidence, abs=1e-4)
            assert len(found.alternatives) == len(alone.alternatives) <= options.nbest
            assert [w.text for w in found.words] == [w.text for w in alone.words]


def test_shape_of_a_result(recognizer):
    [found] = recognizer.recognize([(noise(3.0, 1), 16000)], replace(OPTIONS, nbest=2))
    assert 0 < len(found.tokens) <= 12
    assert found.confidence == pytest.approx(sum(t.probability for t in found.tokens) / len(found.tokens))
    assert 0 < found.confidence < 1
    assert found.alternatives[0].text == found.text
    assert found.model == "FireRedASR2-LLM"
    assert END not in [t.id for t in found.tokens]


def test_too_short_long_and_broken_recordings(recognizer, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    short, long = (np.zeros(300, np.float32), 16000), (noise(65.0, 2), 16000)
    results = recognizer.recognize([short, tmp_path / "bad.wav", long, (noise(0.05), 16000)], OPTIONS)
    assert (results[0].text, results[0].tokens) == ("", [])
    assert isinstance(results[1], Failure)
    assert 12 < len(results[2].tokens) <= 36, "three pieces of at most 30 s"
    assert results[3].text == ""


def test_unknown_searches_are_refused(recognizer):
    for options in (DecodingOptions(search="ctc"), DecodingOptions(search="rescore"), DecodingOptions(lm_weight=0.1)):
        with pytest.raises(OptionsError, match="FireRedASR2-LLM"):
            recognizer.recognize([], options)


def test_a_failing_network_costs_its_own_item(recognizer, monkeypatch):
    read = recognizer.model.read

    def failing(prompts):
        if any(len(p) > 60 for p in prompts):
            raise torch.OutOfMemoryError("out of memory")
        return read(prompts)

    monkeypatch.setattr(recognizer.model, "read", failing)
    one, two = recognizer.recognize([(noise(1.0), 16000), (noise(9.0), 16000)], OPTIONS)
    assert one.text
    assert isinstance(two, Failure)
    assert isinstance(two.error, ModelError)
    assert "out of memory" in str(two.error)


def test_a_loop_is_tried_again_with_a_penalty(recognizer, monkeypatch):
    penalties = []
    generate = recognizer.generate

    def looping(speech, options, **more):
        penalties.append(options.repetition_penalty)
        found = generate(speech, options, **more)
        return [replace(f, looped=len(penalties) == 1 and i == 1) for i, f in enumerate(found)]

    monkeypatch.setattr(recognizer, "generate", looping)
    recordings = [(noise(s, 3), 16000) for s in (1.0, 1.0, 1.5)]
    recognizer.recognize(recordings, OPTIONS)
    assert penalties == [1.0, 1.2]


# ---- LoRA, precisions


def first_logits(recognizer, seconds=2.0):
    speech = recognizer.speech_vectors(*recognizer.front.encode([Utterance(noise(seconds, 4))]))
    logits, _ = recognizer.model.read(recognizer.prompts(speech))
    return logits.float()


def test_lora_counts_and_may_stay_apart(root, tmp_path):
    folder = root / "FireRedASR2-LLM"
    merged = first_logits(LlmRecognizer.from_pretrained(folder))
    apart = first_logits(LlmRecognizer.from_pretrained(folder, merge_lora=False))
    without = first_logits(LlmRecognizer.from_pretrained(write_llm(tmp_path / "plain", lora=False)))
    assert torch.allclose(merged, apart, atol=1e-4)
    assert not torch.allclose(merged, without, atol=1e-2)


def test_frozen_language_models_ignore_lora(root, tmp_path):
    write_llm(tmp_path / "m")
    own = read_checkpoint(tmp_path / "m")
    save(tmp_path / "m/model.pth.tar", {**own.args, "freeze_llm": True}, {k: v.clone() for k, v in own.state.items()})
    plain = first_logits(LlmRecognizer.from_pretrained(write_llm(tmp_path / "plain", lora=False)))
    assert torch.allclose(first_logits(LlmRecognizer.from_pretrained(tmp_path / "m")), plain, atol=1e-5)


def test_encoder_weights_of_the_second_file_take_the_place_of_the_first(tmp_path):
    one = LlmRecognizer.from_pretrained(write_llm(tmp_path / "one", encoder_seed=0, override=9))
    two = LlmRecognizer.from_pretrained(write_llm(tmp_path / "two", encoder_seed=9))
    assert torch.allclose(first_logits(one), first_logits(two), atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_other_precisions_stay_near_float32(root, recognizer, precision):
    try:
        other = LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", precision=precision)
    except OptionsError as error:
        pytest.skip(f"not on this machine: {error}")
    exact, found = first_logits(recognizer), first_logits(other)
    assert float((exact - found).norm() / exact.norm()) < 0.12
    assert other.recognize([(noise(1.0), 16000)], OPTIONS)[0].tokens


@pytest.mark.parametrize("merge", [True, False])
def test_int8_weights(root, recognizer, merge):
    pytest.importorskip("torchao")
    other = LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", weights="int8", merge_lora=merge)
    exact, found = first_logits(recognizer), first_logits(other)
    assert 0 < float((exact - found).norm() / exact.norm()) < 0.1


def exploding(folder, dtype):
    """A network whose residual stream and products leave float16's range, as those of large models do."""
    from transformers import Qwen2ForCausalLM

    fresh = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for layer in fresh.model.layers:
            layer.mlp.gate_proj.weight.mul_(60.0)
            layer.mlp.up_proj.weight.mul_(60.0)
            layer.mlp.down_proj.weight.mul_(60.0)
    return fresh.to(dtype).eval()


def test_float16_does_not_overflow(tmp_path):
    folder = write_qwen(tmp_path / "qwen")
    ids = torch.tensor([[5, 80, 200, 33, 9]])
    with torch.inference_mode():
        exact = exploding(folder, torch.float32)(ids).logits
        plain = exploding(folder, torch.float16)(ids).logits
        network = exploding(folder, torch.float16)
        half.guard(network.model)
        safe = network(inputs_embeds=network.get_input_embeddings()(ids).float()).logits.float()
    assert not bool(plain.isfinite().all()), "the test needs a network that plain float16 cannot run"
    assert bool(safe.isfinite().all())
    assert float((safe - exact).norm() / exact.norm()) < 0.02


# ---- word times


def test_words_come_from_one_encoder_pass_where_the_encoders_are_the_same(recognizer, monkeypatch):
    assert recognizer.aligner.front is recognizer.front
    calls = []
    encode = AcousticFront.encode
    monkeypatch.setattr(AcousticFront, "encode", lambda self, batch: calls.append(len(batch)) or encode(self, batch))
    [found] = recognizer.recognize([(noise(4.0, 1), 16000)], OPTIONS)
    assert calls == [1]
    assert "".join(w.text for w in found.words) == "".join(found.text.split()) or found.words == []
    assert recognizer.recognize([(noise(1.0), 16000)], replace(OPTIONS, timestamps=False))[0].words == []


def test_another_encoder_is_run_for_the_words(root, tmp_path, monkeypatch):
    write_llm(tmp_path / "m", encoder_seed=11)
    other = LlmRecognizer.from_pretrained(tmp_path / "m", aed_dir=root / "FireRedASR2-AED")
    assert other.aligner.front is not other.front
    monkeypatch.setattr(type(other.model.vocabulary), "text", lambda *_: "你好世界")
    [found] = other.recognize([(noise(4.0, 1), 16000)], OPTIONS)
    assert [w.text for w in found.words] == list("你好世界")
    starts = [w.start for w in found.words]
    assert starts == sorted(starts)
    assert 0 <= starts[0] <= found.words[-1].end <= 4.0


def test_word_confidences_are_those_of_the_tokens_that_wrote_them():
    words = [Word("你", 0, 1, 0.1), Word("hello,", 1, 2, 0.1), Word("界", 2, 3, 0.1)]
    tokens = [(2, 0.5), (1, 0.7), (6, 0.9), (1, 0.4), (3, 0.2)]  # 你 in two halves, "hello,", " ", 界
    found = with_confidences(words, "你hello, 界", tokens)
    assert [w.confidence for w in found] == pytest.approx([0.6, 0.9, 0.2])
    assert with_confidences(words, "你hello, 界", tokens[:2]) == words
    blank = with_confidences(words, " 你hello, 界 ", [(1, 0.0), *tokens, (1, 0.0)])
    assert [w.confidence for w in blank] == pytest.approx([0.6, 0.9, 0.2])


def test_the_pipeline_gives_the_same_shape_for_both_recognisers(root, monkeypatch):
    talk = (noise(6.0, 1), 16000)
    results = []
    for name in ("aed", "llm"):
        options = PipelineOptions(recognizer=name, vad=False, on_noise="keep", decoding=replace(OPTIONS, guards=False))
        pipeline = load(root, options=options)
        result = pipeline.transcribe(talk)
        assert result.failures == []
        results.append(result)
    aed, llm = (r.to_dict() for r in results)
    assert aed.keys() == llm.keys()
    assert aed["sentences"][0].keys() == llm["sentences"][0].keys()
    assert results[1].models["asr"] == "FireRedASR2-LLM"
    assert 0 < llm["sentences"][0]["asr_confidence"] < 1
    assert isinstance(Transcript.from_dict(llm), Transcript)


# ---- errors


def change(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf8")), **entries}), encoding="utf8")


def test_missing_parts_are_named(tmp_path):
    folder = write_llm(tmp_path / "m")
    (folder / "Qwen2-7B-Instruct/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of 2 shards: model-00002-of-00002.*pull"):
        LlmRecognizer.from_pretrained(folder)
    (folder / "asr_encoder.pth.tar").unlink()
    with pytest.raises(CheckpointError, match="asr_encoder"):
        LlmRecognizer.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="no model folder"):
        LlmRecognizer.from_pretrained(tmp_path / "none")


def test_damaged_shards_are_named(tmp_path):
    folder = write_llm(tmp_path / "m")
    shard = folder / "Qwen2-7B-Instruct/model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot load the language model"):
        LlmRecognizer.from_pretrained(folder)


def test_the_wrong_tokenizer_is_refused(tmp_path):
    folder = write_llm(tmp_path / "m")
    qwen = folder / "Qwen2-7B-Instruct"
    change(qwen / "config.json", eos_token_id=7)
    with pytest.raises(CheckpointError, match="do not belong together"):
        LlmRecognizer.from_pretrained(folder)
    change(qwen / "config.json", eos_token_id=END, model_type="llama")
    with pytest.raises(CheckpointError, match="llama"):
        LlmRecognizer.from_pretrained(folder)
    change(qwen / "config.json", model_type="qwen2")
    tokenizer = json.loads((qwen / "tokenizer.json").read_text(encoding="utf8"))
    added = [t for t in tokenizer["added_tokens"] if t["content"] != "<|im_end|>"]
    change(qwen / "tokenizer.json", added_tokens=added)
    with pytest.raises(CheckpointError, match="im_end"):
        LlmRecognizer.from_pretrained(folder)
    (qwen / "tokenizer.json").write_text("{}", encoding="utf8")
    with pytest.raises(CheckpointError, match="damaged"):
        LlmRecognizer.from_pretrained(folder)


def test_another_language_model_does_not_fit(tmp_path):
    folder = write_llm(tmp_path / "m")
    write_qwen(folder / "Qwen2-7B-Instruct", intermediate_size=64)
    with pytest.raises(CheckpointError, match="LoRA"):
        LlmRecognizer.from_pretrained(folder)
    write_qwen(folder / "Qwen2-7B-Instruct", hidden_size=16)
    with pytest.raises(CheckpointError, match=r"LoRA|shape"):
        LlmRecognizer.from_pretrained(folder)


def test_a_config_without_sizes_is_refused(tmp_path):
    folder = write_llm(tmp_path / "m")
    change(folder / "Qwen2-7B-Instruct/config.json", num_hidden_layers=None)
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        LlmRecognizer.from_pretrained(folder)


def test_a_failing_alignment_costs_its_own_item(root, tmp_path, monkeypatch):
    other = LlmRecognizer.from_pretrained(write_llm(tmp_path / "m", encoder_seed=11), aed_dir=root / "FireRedASR2-AED")
    posteriors = type(other.aligner).posteriors

    def failing(self, samples):
        if len(samples) > 30000:
            raise ModelError("no memory")
        return posteriors(self, samples)

    monkeypatch.setattr(type(other.aligner), "posteriors", failing)
    one, two = other.recognize([(noise(1.0), 16000), (noise(3.0), 16000)], OPTIONS)
    assert one.text
    assert isinstance(two, Failure)


def test_half_of_a_lora_weight_is_refused(tmp_path):
    state = lora_state()
    state.pop(next(k for k in state if "lora_B" in k))
    with pytest.raises(CheckpointError, match="one half"):
        Lora.of(state, tmp_path)
    with pytest.raises(CheckpointError, match="unknown"):
        Lora.of({"llm.lm_head.weight": torch.zeros(1)}, tmp_path)


def test_too_little_memory_is_said_before_loading(root, monkeypatch):
    monkeypatch.setattr(language_model, "free_memory", lambda: 1000)
    with pytest.raises(ModelError, match=r"needs 0\.0 GB.*int4"):
        LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM")
    # int8 holds less than what is read for it
    monkeypatch.setattr(language_model, "free_memory", lambda: 100_000)
    with pytest.raises(ModelError, match="needs"):
        LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", weights="int8")
    monkeypatch.setattr(language_model, "free_memory", lambda: None)
    require_memory(1 << 60, torch.device("cpu"))


def test_memory_of_the_published_size():
    config = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    config |= {"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False}
    parameters = 7_615_616_512  # of Qwen2-7B, norms and biases (0.2 million) included
    assert memory_needed(config, "full", "float32") == pytest.approx(4 * parameters, rel=1e-3)
    assert memory_needed(config, "full", "bfloat16") == pytest.approx(2 * parameters, rel=1e-3)
    assert memory_needed(config, "int8", "bfloat16") < 0.61 * memory_needed(config, "full", "bfloat16")
    assert memory_needed(config, "int4", "bfloat16") < 0.41 * memory_needed(config, "full", "bfloat16")


def test_options_are_checked(root):
    for wrong in ({"engine": "x"}, {"weights": "int2"}, {"url": "http://x"}, {"gpus": 0}):
        with pytest.raises(OptionsError):
            LlmOptions(**wrong)
    with pytest.raises(OptionsError, match="not by both"):
        language_model.load_language_model(
            root / "FireRedASR2-LLM/Qwen2-7B-Instruct", replace(Runtime.of(), precision="int8"), None, weights="int8"
        )
    with pytest.raises(OptionsError, match="int4 weights need"):
        LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", weights="int4")
    for wrong in ({"repetition_penalty": 0}, {"min_tokens": -1}, {"min_tokens": 5, "max_tokens": 3}):
        with pytest.raises(OptionsError):
            DecodingOptions(**wrong)


def test_without_transformers_the_extra_is_named(root, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Exception, match=r"vermilion\[llm\]") as caught:
        LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM")
    assert type(caught.value).__name__ == "MissingDependencyError"


def test_damaged_weights_are_a_failure_in_place(root):
    broken = LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM")
    with torch.no_grad():
        broken.model.network.model.norm.weight.fill_(math.nan)
    [found] = broken.recognize([(noise(1.0), 16000)], OPTIONS)
    assert isinstance(found, Failure)
    assert "finite" in str(found.error)
