"""Recipe of FireRedASR2-LLM on a tiny random Qwen2: what is learnt, from what, and that others can load it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from llm_helpers import END, write_llm, write_qwen
from safetensors.torch import load_file, save_file
from tiny import write_aed
from training_helpers import DATA, corpus, options

from vermilion.asr import DecodingOptions, LlmRecognizer
from vermilion.asr.language_model import Vocabulary
from vermilion.asr.llm import ENCODER_FILE, QWEN
from vermilion.asr.prompt import target_text
from vermilion.checkpoints import catalogue
from vermilion.checkpoints.reader import read_checkpoint
from vermilion.cli import main
from vermilion.encoding import Utterance
from vermilion.errors import CheckpointError, OptionsError, TrainingError
from vermilion.manifests import Utterance as Line
from vermilion.manifests import read_manifest
from vermilion.nn.lora import LoraLinear
from vermilion.runtime import Runtime
from vermilion.training.augment import AugmentOptions
from vermilion.training.checkpoints import read_training_checkpoint, training_checkpoints
from vermilion.training.llm import network_for, publish_llm, read_start, target_ids, train_llm
from vermilion.training.llm_options import LlmTrainingOptions
from vermilion.training.log import read_metrics
from vermilion.training.speech import SpeechData

GOLDEN = Path(__file__).parents[2] / "shared/golden/public/checkpoints/FireRedASR2-LLM"
CPU = Runtime(torch.device("cpu"), "float32")
QUIET = AugmentOptions(speeds=(1.0,), volume=0, reverb=0, noise=0, codec=0, low_pass=0, clip=0)
LEARN = LlmTrainingOptions(dropout=0.0, lora_dropout=0.0, mask=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_llm(tmp_path_factory.mktemp("published") / "FireRedASR2-LLM")


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """A model whose language model can be sure of itself: a random one's scores are all near each other."""
    folder = write_llm(tmp_path_factory.mktemp("clear") / "FireRedASR2-LLM")
    for shard in (folder / QWEN).glob("*.safetensors"):
        state = load_file(shard)
        if "lm_head.weight" in state:
            state["lm_head.weight"] = 4 * state["lm_head.weight"]
            save_file(state, shard, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def aed(tmp_path_factory):
    return write_aed(tmp_path_factory.mktemp("aed") / "FireRedASR2-AED")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("corpus"), 8)


def built(folder, manifest, chosen=LEARN, checkpointing=False):
    """Network and data of a fine-tuning."""
    start = read_start(replace(chosen, init=folder))
    network = network_for(start, replace(chosen, init=folder), CPU, checkpointing)
    vocabulary = Vocabulary.from_folder(start.qwen)
    utterances = read_manifest(manifest)
    ids = target_ids(vocabulary, utterances)
    data = SpeechData(utterances, ids, LlmRecognizer.from_pretrained(folder).front.features, DATA, padding=END)
    return network.eval(), data


def batch_of(data, items):
    return data.batch(0, items, [data.features(0, i) for i in items])


def losses(network, batch):
    return network(batch.features, batch.lengths, batch.tokens, batch.token_lengths)


def answers(folder, manifest):
    recognizer = LlmRecognizer.from_pretrained(folder)
    found = recognizer.recognize([u.audio for u in read_manifest(manifest)], DecodingOptions(max_tokens=40))
    return [r.text for r in found]


# ---- targets


def test_targets_are_clean_and_end(published):
    vocabulary = Vocabulary.from_folder(published / QWEN)

    def ids(text):
        return target_ids(vocabulary, [Line("u1", "u1.wav", text=text)])[0]

    found = ids("Hello, World.")
    assert vocabulary.text(found) == "hello world"
    assert found[-1] == vocabulary.end == END
    assert found.count(END) == 1
    assert ids("你好， 世界！") == ids("你好世界")
    assert ids("。？！") == []
    with pytest.raises(TrainingError, match="control token"):
        ids("stop <|im_end|> here")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("《三体》（第一部）·“黑暗森林”、", "三体第一部黑暗森林"),
        ("  a \t b \n c ", "a b c"),
        ("打开 Wi-Fi 和 GPS", "打开 wi-fi 和 gps"),
        ("我 们 去 New York 吧", "我们去 new york 吧"),
        ("and/or\\x 3.5", "andor\\x 35"),
        ("ＡＢＣ", "ａｂｃ"),
        ("", ""),
    ],
)
def test_cleaning_of_targets(text, clean):
    assert target_text(text) == clean


# ---- the loss


def test_the_forward_pass_is_that_of_the_recogniser(published, manifest):
    network, data = built(published, manifest)
    recognizer = LlmRecognizer.from_pretrained(published, merge_lora=False)
    batch = batch_of(data, [0, 1, 2])
    with torch.inference_mode():
        vectors, starts = network.inputs(batch.features, batch.lengths, batch.tokens, batch.token_lengths)
        hidden = network.llm.model(inputs_embeds=vectors, use_cache=False).last_hidden_state
        ours = network.llm.lm_head(hidden)
        samples = [Utterance(data.utterances[i].load()) for i in batch.items]
        speech = recognizer.speech_vectors(*recognizer.front.encode(samples))
        logits, running = recognizer.model.read(recognizer.prompts(speech))
        rows = torch.arange(3)
        torch.testing.assert_close(ours[rows, starts - 1], logits, rtol=1e-4, atol=1e-4)
        for step in range(int(batch.token_lengths.min()) - 1):
            logits = running.advance(batch.tokens[:, step])
            torch.testing.assert_close(ours[rows, starts + step], logits, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_the_transcript_alone(published, manifest):
    network, data = built(published, manifest)
    batch = batch_of(data, [0, 1, 3])
    found = losses(network, batch)["loss"].item()
    vectors, starts = network.inputs(batch.features, batch.lengths, batch.tokens, batch.token_lengths)
    scores = network.llm(inputs_embeds=vectors).logits.log_softmax(-1)
    by_hand = [
        -scores[row, start + place - 1, token]
        for row, (start, ids) in enumerate(zip(starts.tolist(), (data.tokens[i] for i in batch.items), strict=True))
        for place, token in enumerate(ids)
    ]
    assert all(data.tokens[i][-1] == END for i in batch.items)
    assert len(by_hand) == int(batch.token_lengths.sum())
    assert found == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)


def test_what_the_prompt_says_is_no_target(published, manifest, monkeypatch):
    """The same positions count whatever the prompt's tokens are; nothing of it is predicted."""
    network, data = built(published, manifest)
    batch = batch_of(data, [0, 1])
    seen = []
    original = torch.nn.functional.cross_entropy
    monkeypatch.setattr(
        torch.nn.functional, "cross_entropy", lambda x, y, **more: seen.append(y) or original(x, y, **more)
    )
    first = losses(network, batch)["loss"].item()
    network.after = [7] * len(network.after)
    second = losses(network, batch)["loss"].item()
    assert first != second  # the prompt is read …
    targets = [t for i in batch.items for t in data.tokens[i]]
    assert [y.tolist() for y in seen] == [targets, targets]  # … and not learnt


def test_padding_changes_nothing(published, manifest):
    network, data = built(published, manifest)
    alone = [batch_of(data, [i]) for i in range(4)]
    counts = [int(b.token_lengths.sum()) for b in alone]
    with torch.no_grad():
        mean = sum(n * float(losses(network, b)["loss"]) for n, b in zip(counts, alone, strict=True)) / sum(counts)
        assert float(losses(network, batch_of(data, [0, 1, 2, 3]))["loss"]) == pytest.approx(mean, rel=1e-5)
        wide = batch_of(data, [0, 1])
        padded = replace(
            wide,
            features=torch.nn.functional.pad(wide.features, (0, 0, 0, 57)),
            tokens=torch.nn.functional.pad(wide.tokens, (0, 9), value=3),
        )
        assert float(losses(network, padded)["loss"]) == pytest.approx(float(losses(network, wide)["loss"]), rel=1e-5)


# ---- what is trained


@pytest.mark.parametrize(
    ("frozen", "wanted"),
    [
        ({}, {"encoder", "adapter", "lora"}),
        ({"freeze_encoder": True}, {"adapter", "lora"}),
        ({"freeze_llm": True}, {"encoder", "adapter"}),
        ({"freeze_encoder": True, "freeze_llm": True}, {"adapter"}),
    ],
)
def test_only_what_is_wanted_gets_gradients(published, manifest, frozen, wanted):
    network, data = built(published, manifest, replace(LEARN, **frozen))
    network.train()
    losses(network, batch_of(data, [0, 1]))["loss"].backward()
    kinds = {"encoder": "encoder.", "adapter": "adapter.", "lora": "llm."}
    for kind, prefix in kinds.items():
        own = {n: p for n, p in network.named_parameters() if n.startswith(prefix)}
        if kind == "lora":
            base = {n: p for n, p in own.items() if not n.endswith((".a", ".b"))}
            assert base
            assert all(p.grad is None and not p.requires_grad for p in base.values())
            own = {n: p for n, p in own.items() if n not in base}
            assert len(own) == (2 * 7 * 2 if kind in wanted else 0)  # A and B, seven projections, two layers
        learnt = [n for n, p in own.items() if p.grad is not None and bool(p.grad.any())]
        assert len(learnt) == (len(own) if kind in wanted else 0), kind


def test_checkpointing_gives_the_same_gradients(published, manifest):
    found = []
    for checkpointing in (False, True):
        network, data = built(published, manifest, checkpointing=checkpointing)
        network.train()
        losses(network, batch_of(data, [0, 1]))["loss"].backward()
        found.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)


def test_dropout_of_lora_works_in_training_alone(published, manifest):
    network, data = built(published, manifest, replace(LEARN, lora_dropout=0.5))
    batch = batch_of(data, [0])
    with torch.no_grad():
        assert torch.equal(losses(network, batch)["loss"], losses(network, batch)["loss"])
        network.train()
        assert not torch.equal(losses(network, batch)["loss"], losses(network, batch)["loss"])


def test_a_frozen_encoder_has_no_dropout(published, manifest):
    network, data = built(published, manifest, replace(LEARN, freeze_encoder=True, dropout=0.5))
    network.train()
    batch = batch_of(data, [0])
    with torch.no_grad():
        assert torch.equal(losses(network, batch)["loss"], losses(network, batch)["loss"])


# ---- whole trainings


def train(output, manifest, chosen, steps=4, **more):
    settings = options(output, steps, **{"learning_rate": 3e-3, "log_every": 1, **more})
    return train_llm(manifest, options=chosen, training=settings, data=DATA, augment=QUIET)


def test_an_overfitted_model_recognises_its_texts(clear, tmp_path):
    manifest = corpus(tmp_path / "corpus", 4)
    outcome = train(tmp_path, manifest, replace(LEARN, init=clear), 60, learning_rate=5e-3, log_every=10)
    assert outcome.finished
    lines = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert lines[-1] < 0.1 * lines[0]
    texts = [target_text(u.text) for u in read_manifest(manifest)]
    assert not set(answers(clear, manifest)) & set(texts)
    assert answers(tmp_path / "model", manifest) == texts
    assert (tmp_path / "model" / QWEN).is_symlink()
    assert catalogue.find("fireredasr2-llm", tmp_path / "model") == tmp_path / "model"
    assert catalogue.find("fireredasr2-aed", tmp_path / "model") != tmp_path / "model"


def test_a_new_model_out_of_a_recogniser_and_a_qwen(aed, published, manifest, tmp_path):
    qwen = write_qwen(tmp_path / "qwen", seed=3)
    chosen = LlmTrainingOptions(encoder=aed, qwen=qwen, lora_rank=3, copy_qwen=True, half=True)
    outcome = train_llm(
        manifest, dev=manifest, options=chosen, training=options(tmp_path / "out", 3), data=DATA, augment=QUIET
    )
    assert outcome.finished
    assert outcome.validation["valid_loss"] > 0
    model = tmp_path / "out" / "model"
    assert not (model / QWEN).is_symlink()
    own = read_checkpoint(model)
    assert own.args == {
        "encoder_downsample_rate": 2, "use_lora": True, "freeze_llm": False, "freeze_encoder": False,
        "use_flash_attn": False, "use_fp16": 0,
    }  # fmt: skip
    key = "llm.base_model.model.model.layers.1.mlp.down_proj.lora_A.default.weight"
    assert own.state[key].shape == (3, 48)
    assert own.state[key].dtype == torch.float16
    assert {k.split(".")[0] for k in own.state} == {"encoder", "encoder_projector", "llm"}
    first = read_checkpoint(model, ENCODER_FILE)
    assert first.args["d_model"] == 16
    assert not first.state, "as published: the encoder lies beside adapter and LoRA weights"
    before = {k: v for k, v in read_checkpoint(aed).state.items() if k.startswith("encoder.")}
    assert before.keys() == {k for k in own.state if k.startswith("encoder.")}
    assert any(not torch.equal(v.half(), own.state[k]) for k, v in before.items() if v.ndim > 1)
    assert len(answers(model, manifest)) == 8


def test_a_training_that_does_nothing_keeps_the_model(published, manifest, tmp_path):
    start = read_start(LlmTrainingOptions(init=published))
    chosen = replace(LEARN, init=published)
    publish_llm(tmp_path / "same", network_for(start, chosen, CPU, False), start, chosen)
    before, after = read_checkpoint(published), read_checkpoint(tmp_path / "same")
    assert before.state.keys() <= after.state.keys()
    assert all(torch.equal(before.state[k], after.state[k]) for k in before.state)
    assert answers(tmp_path / "same", manifest) == answers(published, manifest)


def test_encoder_weights_of_the_second_file_are_trained_on(manifest, tmp_path):
    folder = write_llm(tmp_path / "llm", override=9)
    newer = read_checkpoint(folder).state
    for frozen in (False, True):
        chosen = replace(LEARN, init=folder, freeze_encoder=frozen)
        start = read_start(chosen)
        model = publish_llm(tmp_path / f"out{frozen}", network_for(start, chosen, CPU, False), start, chosen)
        kept = read_checkpoint(model).state
        assert all(torch.equal(kept[k], v) for k, v in newer.items() if k.startswith("encoder."))
        assert not read_checkpoint(model, ENCODER_FILE).state


def test_a_training_in_parts_is_the_training_in_one(published, manifest, tmp_path):
    """With dropout, masks and augmentation on."""
    chosen = LlmTrainingOptions(init=published)

    def go(folder, steps):
        training = options(folder, steps, save_every=2, accumulation=2, gradient_checkpointing=True)
        return train_llm(manifest, options=chosen, training=training, data=DATA)

    go(tmp_path / "one", 5)
    for steps in (2, 4, 5):
        go(tmp_path / "parts", steps)
    one, parts = (read_checkpoint(tmp_path / name / "model") for name in ("one", "parts"))
    assert one.state.keys() == parts.state.keys()
    assert all(torch.equal(one.state[k], parts.state[k]) for k in one.state)


def test_checkpoints_hold_only_what_is_trained(published, manifest, tmp_path):
    train(tmp_path, manifest, replace(LEARN, init=published, freeze_encoder=True), 1)
    weights = read_training_checkpoint(training_checkpoints(tmp_path)[-1]).weights
    assert {n.split(".")[0] for n in weights} == {"adapter", "llm"}
    assert all(n.endswith((".a", ".b")) for n in weights if n.startswith("llm."))


def test_bfloat16_holds_the_language_model_so(published, manifest, tmp_path):
    chosen = replace(LEARN, init=published)
    assert train(tmp_path, manifest, chosen, 2, precision="bfloat16").finished
    own = read_checkpoint(tmp_path / "model")
    assert all(t.dtype == torch.float32 for t in own.state.values())
    network = network_for(read_start(chosen), chosen, Runtime(torch.device("cpu"), "bfloat16"), False)
    assert network.llm.lm_head.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in network.parameters() if p.requires_grad)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden checkpoints are not here")
def test_the_published_layout_is_fine_tuned(manifest, tmp_path):
    chosen = replace(LEARN, init=GOLDEN)
    start = read_start(chosen)
    network = network_for(start, chosen, CPU, False)
    ranks = {len(m.a) for m in network.llm.modules() if isinstance(m, LoraLinear)}
    assert len(ranks) == 1
    model = publish_llm(tmp_path / "same", network, start, chosen)
    assert answers(model, manifest) == answers(GOLDEN, manifest)
    train(tmp_path / "out", manifest, chosen, 12, log_every=4)
    lines = [row["loss"] for row in read_metrics(tmp_path / "out" / "metrics.jsonl") if "loss" in row]
    assert lines[-1] < lines[0]
    before, after = read_checkpoint(GOLDEN), read_checkpoint(tmp_path / "out" / "model")
    assert {k for k in before.state if k.startswith("llm.")} == {k for k in after.state if k.startswith("llm.")}
    assert len(answers(tmp_path / "out" / "model", manifest)) == 8


def test_the_command(published, manifest, tmp_path, capsys):
    # fmt: off
    command = ["train", "llm", str(manifest), "--init", str(published), "--output-dir", str(tmp_path), "--steps", "2",
               "--device", "cpu", "--threads", "1", "--max-frames", "1200", "--json", "--quiet"]
    # fmt: on
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is True
    assert (tmp_path / "model" / "model.pth.tar").exists()
    assert main(["train", "llm", "--help"]) == 0
    assert "--freeze-encoder" in capsys.readouterr().out


# ---- mistakes


def test_options_that_do_not_fit():
    for wrong in (
        {"init": Path("a"), "qwen": Path("b")},
        {"encoder": Path("a")},
        {"qwen": Path("a")},
        {"lora_rank": 0},
        {"dropout": 1.0},
        {"lora_dropout": -0.1},
    ):
        with pytest.raises(OptionsError):
            LlmTrainingOptions(**wrong)
    with pytest.raises(OptionsError, match="where to start"):
        read_start(LlmTrainingOptions())


def test_float16_is_refused(published, manifest, tmp_path):
    with pytest.raises(OptionsError, match="bfloat16"):
        train(tmp_path, manifest, LlmTrainingOptions(init=published), precision="float16")


def test_parts_that_do_not_fit(published, manifest, tmp_path):
    other = write_llm(tmp_path / "wide", hidden_size=64, lora=False)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for name in ("model.pth.tar", ENCODER_FILE, "cmvn.ark"):
        (wrong / name).symlink_to(published / name)
    (wrong / QWEN).symlink_to(other / QWEN)
    with pytest.raises(CheckpointError, match="encoder_projector|linear|SpeechAdapter"):
        network_for(read_start(LlmTrainingOptions(init=wrong)), LEARN, CPU, False)
    with pytest.raises(CheckpointError, match="Qwen2-7B-Instruct"):
        read_start(LlmTrainingOptions(init=tmp_path))
