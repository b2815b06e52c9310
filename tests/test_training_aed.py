"""The recogniser's recipe on tones: learns, resumes exactly, publishes what every loader reads."""

import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")

from training_helpers import DATA, QUIET, TINY, corpus, options, sound  # noqa: E402

from vermilion import PipelineOptions, load  # noqa: E402
from vermilion.asr import AedRecognizer, DecodingOptions  # noqa: E402
from vermilion.checkpoints.reader import read_checkpoint, read_dictionary  # noqa: E402
from vermilion.errors import CheckpointError, OptionsError, TrainingError  # noqa: E402
from vermilion.manifests import read_manifest, write_manifest  # noqa: E402
from vermilion.training.aed import AedNetwork, network_for, shifted, train_aed  # noqa: E402
from vermilion.training.checkpoints import FOLDER, training_checkpoints  # noqa: E402
from vermilion.training.log import read_metrics  # noqa: E402
from vermilion.training.lora import add_lora, merge_lora  # noqa: E402
from vermilion.training.options import AedOptions, TokenOptions  # noqa: E402
from vermilion.training.tokens import SPECIAL, build_tokens, encode_texts, spoken  # noqa: E402

LONG = Path(__file__).resolve().parents[1]


def published(folder: Path) -> dict:
    return read_checkpoint(folder / "model").state


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def short(manifest: Path, folder: Path, steps: int = 6, *, recipe=TINY, **more):
    return train_aed(
        manifest, options=recipe, training=options(folder, steps, **more), data=DATA, tokens=TokenOptions(pieces=30)
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trained(manifest, tmp_path_factory) -> Path:
    """A recogniser that knows its tones."""
    folder = tmp_path_factory.mktemp("trained")
    dev = corpus(folder / "dev", count=8, seed=1)
    train_aed(
        manifest,
        dev=dev,
        options=replace(TINY, plain_steps=100),
        training=options(folder, 130, validate_every=65, ema_decay=0.9),
        data=DATA,
        tokens=TokenOptions(pieces=30),
        augment=QUIET,
    )
    return folder


def test_it_learns(trained):
    rows = list(read_metrics(trained / "metrics.jsonl"))
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.35 * losses[0]
    assert max(row["accuracy"] for row in rows if "accuracy" in row) > 0.8
    valid = [row for row in rows if "valid_loss" in row]
    assert valid[-1]["valid_loss"] < valid[0]["valid_loss"]
    assert (trained / "loss.png").stat().st_size > 1000


@pytest.mark.parametrize("search", ["beam", "greedy", "ctc"])
def test_the_recogniser_loads_it_and_hears_what_was_said(trained, search):
    recognizer = AedRecognizer.from_pretrained(trained / "model")
    heard = [["二", "四", "一"], ["NO", "YES"], ["三", "三"]]
    options = DecodingOptions(search=search)
    found = recognizer.recognize([(sound(words, 900 + i), 16000) for i, words in enumerate(heard)], options)
    for result, words in zip(found, heard, strict=True):
        said, text = "".join(words).lower(), result.text.replace(" ", "")
        assert SequenceMatcher(None, said, text).ratio() > (0.9 if search == "ctc" else 0.6), (said, text)
    assert all(word.end > word.start for r in found for word in r.words)


def test_the_pipeline_runs_with_it(trained, tmp_path):
    (tmp_path / "FireRedASR2-AED").symlink_to(trained / "model")
    off = PipelineOptions(recognizer="aed", vad=False, lid=False, punctuation=False, events=False, route="never")
    transcript = load(tmp_path, options=off).transcribe((sound(["一", "二", "三"], 77), 16000))
    assert transcript.words
    assert transcript.text


def test_the_published_form(trained):
    found = read_checkpoint(trained / "model")
    assert found.args["odim"] == len(read_dictionary(trained / "model" / "dict.txt"))
    sizes = [found.args[k] for k in ("idim", "d_model", "n_head", "n_layers_enc", "n_layers_dec", "kernel_size")]
    assert sizes == [80, 32, 2, 2, 1, 15]
    assert [found.args[k] for k in ("pad_id", "sos_id", "eos_id")] == [2, 3, 4]
    keys = ("encoder.layer_stack.1.conv.batch_norm.weight", "decoder.layer_stack.0.cross_attn.w_qs.bias")
    assert {*keys, "encoder.layer_stack.0.ffn1.net.4.weight", "ctc.ctc_lo.weight"} <= found.state.keys()


def test_float16_weights_still_hear(manifest, tmp_path):
    short(manifest, tmp_path, recipe=replace(TINY, half=True))
    state = published(tmp_path)
    assert {t.dtype for t in state.values() if t.ndim > 1} == {torch.float16}
    AedRecognizer.from_pretrained(tmp_path / "model").recognize([(sound(["一"], 1), 16000)])


def test_a_training_in_parts_is_the_training_in_one(manifest, tmp_path):
    """With augmentation, SpecAugment, dropout and the change of regularisation in between."""
    recipe = replace(TINY, plain_steps=5)
    short(manifest, tmp_path / "a", 9, recipe=recipe, accumulation=2)
    for steps in (4, 6, 9):
        short(manifest, tmp_path / "b", steps, recipe=recipe, accumulation=2)
    assert equal(published(tmp_path / "a"), published(tmp_path / "b"))


def test_regularisation_begins_when_it_should(manifest, tmp_path):
    """Until then dropout and masks change nothing, from then on they do."""
    one = replace(TINY, plain_steps=4)
    other = replace(TINY, plain_steps=4, dropout=0.4)
    state = []
    for name, recipe in {"a": one, "b": other}.items():
        for steps in (4, 5):
            short(manifest, tmp_path / f"{name}{steps}", steps, recipe=recipe)
            state.append(published(tmp_path / f"{name}{steps}"))
    assert equal(state[0], state[2])
    assert not equal(state[1], state[3])


def test_killed_at_any_moment_and_resumed(manifest, tmp_path):
    """SIGKILL, at a moment that differs from run to run: the end is the same bit for bit."""
    short(manifest, tmp_path / "whole", 12)
    code = (
        "from pathlib import Path; from test_training_aed import short;"
        f"short(Path({str(manifest)!r}), Path({str(tmp_path / 'killed')!r}), 12, save_every=1)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(LONG / "src"), str(LONG / "tests")])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=LONG)
    folder = tmp_path / "killed"
    wanted = random.randrange(1, 10)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(p.stem.split("-")[1]) >= wanted for p in (folder / FOLDER).glob("step-*.pt")):
            break
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert training_checkpoints(folder), "the training did not begin in time"
    short(manifest, folder, 12, save_every=1)
    assert equal(published(tmp_path / "whole"), published(folder))


def test_fine_tuning_starts_from_the_published_weights(trained, manifest, tmp_path):
    recipe = replace(TINY, init=trained / "model")
    network, args = network_for(recipe, len(read_dictionary(trained / "model" / "dict.txt")), False)
    assert equal(network.published(), published(trained))
    assert args["odim"] == read_checkpoint(trained / "model").args["odim"]
    short(manifest, tmp_path, 1, recipe=recipe, learning_rate=1e-9)
    before, after = published(trained), published(tmp_path)
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)
    short(manifest, tmp_path / "more", 3, recipe=recipe)
    assert not equal(published(tmp_path / "more"), before)


def test_lora_starts_equal_changes_only_matrices_and_merges(trained, manifest, tmp_path):
    recipe = replace(TINY, init=trained / "model", lora_rank=4)
    network, _ = network_for(recipe, len(read_dictionary(trained / "model" / "dict.txt")), False)
    network.eval()
    inputs = (torch.randn(2, 60, 80), torch.tensor([60, 44]), torch.tensor([[6, 7], [8, 2]]), torch.tensor([2, 1]))
    before = network(*inputs)["loss"]
    assert add_lora(network, 4, 8.0) > 10
    assert torch.equal(network(*inputs)["loss"], before)
    for name, parameter in network.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.1)
    changed = network(*inputs)["loss"]
    merge_lora(network)
    assert not torch.allclose(changed, before)
    assert torch.allclose(network(*inputs)["loss"], changed, atol=1e-4)
    assert network.published().keys() == published(trained).keys()

    short(manifest, tmp_path, 4, recipe=recipe)
    old, new = published(trained), published(tmp_path)
    changed_keys = {k for k in old if not torch.equal(old[k], new[k])}
    assert "decoder.tgt_word_emb.weight" not in changed_keys
    assert not any(k.startswith("encoder") and old[k].ndim == 1 for k in changed_keys)
    assert "encoder.layer_stack.0.mhsa.w_qs.weight" in changed_keys
    AedRecognizer.from_pretrained(tmp_path / "model")
    checkpoint = torch.load(training_checkpoints(tmp_path)[-1], weights_only=True)
    assert not any("base" in name for name in checkpoint["weights"])


def test_gradient_checkpointing_changes_nothing(manifest, tmp_path):
    short(manifest, tmp_path / "a", 3)
    short(manifest, tmp_path / "b", 3, gradient_checkpointing=True)
    one, other = published(tmp_path / "a"), published(tmp_path / "b")
    assert all(torch.allclose(one[k], other[k], atol=1e-5) for k in one)


def test_bfloat16(manifest, tmp_path):
    outcome = short(manifest, tmp_path, 3, precision="bfloat16")
    assert outcome.finished
    assert all(bool(t.isfinite().all()) for t in published(tmp_path).values())


def test_batching_and_padding_change_no_loss():
    """What stands behind the end of an utterance, and who its neighbours are, does not matter."""
    torch.manual_seed(0)
    network = AedNetwork(replace(TINY).sizes, 12, replace(TINY, label_smoothing=0.0)).eval()
    features = torch.randn(2, 80, 80)
    features[1, 48:] = 0.0
    lengths, tokens, counts = torch.tensor([80, 48]), torch.tensor([[6, 7, 8], [9, 6, 2]]), torch.tensor([3, 2])
    both = network(features, lengths, tokens, counts)
    alone = [
        network(features[:1], lengths[:1], tokens[:1], counts[:1]),
        network(features[1:, :48], lengths[1:], tokens[1:, :2], counts[1:]),
    ]
    for name, sizes in {"attention": (4, 3), "ctc": (3, 2)}.items():
        mean = sum(size * found[name] for size, found in zip(sizes, alone, strict=True)) / sum(sizes)
        assert torch.allclose(both[name], mean, atol=1e-4), name


def test_what_the_decoder_is_given_and_must_say():
    given, wanted = shifted(torch.tensor([[7, 8, 9], [6, 2, 2]]), torch.tensor([3, 1]))
    assert given.tolist() == [[3, 7, 8, 9], [3, 6, 2, 2]]
    assert wanted.tolist() == [[7, 8, 9, 4], [6, 4, -100, -100]]


def test_vocabulary(tmp_path):
    texts = ["你好，世界！HELLO WORLD", "你们 hello… “the” world", "don’t ＡＢ 12"]
    tokenizer = build_tokens(tmp_path, texts, TokenOptions(pieces=40))
    assert tuple(tokenizer.vocabulary[:6]) == SPECIAL
    assert tokenizer.vocabulary[6] == "你"  # the most frequent character
    assert set("好世界们") <= set(tokenizer.vocabulary)
    ids = encode_texts(tokenizer, texts)
    assert all(tokenizer.unknown not in line for line in ids)
    assert tokenizer.decode(ids[0]).replace(" ", "") == "你好世界HELLOWORLD"
    assert spoken(texts[2]) == "DON'T AB 12"
    assert read_dictionary(tmp_path / "dict.txt") == tokenizer.vocabulary
    again = build_tokens(tmp_path / "b", texts, TokenOptions(pieces=40))
    assert again.vocabulary == tokenizer.vocabulary
    rare = build_tokens(tmp_path / "c", ["好好你", "好"], TokenOptions(min_count=2))
    assert rare.vocabulary == [*SPECIAL, "好"]
    with pytest.raises(TrainingError, match="nothing that is spoken"):
        build_tokens(tmp_path / "d", ["…", "!"], TokenOptions())


def test_what_cannot_be_trained(manifest, trained, tmp_path):
    silent = tmp_path / "silent.jsonl"
    write_manifest(silent, [replace(u, text=None) for u in read_manifest(manifest)])
    with pytest.raises(TrainingError, match="24 without a text"):
        short(silent, tmp_path / "a")
    with pytest.raises(TrainingError, match="24 longer than 0.2 s"):
        train_aed(manifest, training=options(tmp_path / "b", 1), data=replace(DATA, max_seconds=0.2))
    with pytest.raises(CheckpointError):
        short(manifest, tmp_path / "c", recipe=replace(TINY, init=tmp_path))
    with pytest.raises(OptionsError, match="--init"):
        AedOptions(lora_rank=4)
    with pytest.raises(OptionsError, match="width"):
        AedOptions(width=33)


def test_the_command(manifest, tmp_path, capsys):
    from vermilion.cli import main

    arguments = ["train", "aed", str(manifest), "--output-dir", str(tmp_path), "--steps", "2", "--device", "cpu"]
    arguments += ["--width", "32", "--heads", "2", "--encoder-layers", "1", "--decoder-layers", "1", "--pieces", "30"]
    assert main([*arguments, "--threads", "1", "--augment.noise", "0.2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert '"finished": true' in out
    assert re.search(r"data: 24 utterances, 0\.\d\d h\nnetwork: 0\.\d\d M parameters; cpu, 1 threads, float32", err)
    assert np.isfinite(float(next(iter(published(tmp_path).values())).sum()))
    assert main([*arguments, "--learning-rate", "-1"]) == 2


def test_processes_prepare_the_same_data(manifest, tmp_path):
    short(manifest, tmp_path / "a", 3)
    train_aed(
        manifest,
        options=TINY,
        training=options(tmp_path / "b", 3),
        data=replace(DATA, processes=2),
        tokens=TokenOptions(pieces=30),
    )
    assert equal(published(tmp_path / "a"), published(tmp_path / "b"))
