"""The punctuation network against the formulas, and its folder."""

import json
import math

import numpy as np
import pytest
import torch
from punc_helpers import CONFIG, LABELS, VOCABULARY, random_network, write_folder

from vermilion.errors import CheckpointError, OptionsError
from vermilion.nn.punctuation import PunctuationConfig
from vermilion.punc import PunctuationOptions, PunctuationRestorer


def _norm(x, state, name):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-12) * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _attention(x, state, name):
    heads, size = CONFIG["num_attention_heads"], CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    query, key, value = (_linear(x, state, f"{name}.self.{part}") for part in ("query", "key", "value"))
    out = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ value[:, part])
    return _norm(_linear(np.concatenate(out, 1), state, f"{name}.output.dense") + x, state, f"{name}.output.LayerNorm")


def reference(state, ids):
    """SPEC section 11.1 in plain numpy, one unpadded row."""
    embeddings = "bert.embeddings"
    x = state[f"{embeddings}.word_embeddings.weight"][ids]
    x = x + state[f"{embeddings}.position_embeddings.weight"][: len(ids)]
    x = _norm(x + state[f"{embeddings}.token_type_embeddings.weight"][0], state, f"{embeddings}.LayerNorm")
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"bert.encoder.layer.{layer}"
        x = _attention(x, state, f"{name}.attention")
        wide = _gelu(_linear(x, state, f"{name}.intermediate.dense"))
        x = _norm(_linear(wide, state, f"{name}.output.dense") + x, state, f"{name}.output.LayerNorm")
    return _linear(x[1:], state, "classifier")


def test_network_follows_the_formulas_and_padding_changes_nothing():
    network = random_network()
    state = {k: v.double().numpy() for k, v in network.state_dict().items()}
    rows = [[2, 5, 9, 30], [2, 7], [2, 11, 12, 13, 14, 15, 16]]
    padded = torch.tensor([row + [0] * (7 - len(row)) for row in rows])
    with torch.inference_mode():
        scores = network(padded, torch.tensor([len(row) for row in rows])).numpy()
    for row, got in zip(rows, scores, strict=True):
        np.testing.assert_allclose(got[: len(row) - 1], reference(state, row), atol=2e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("num_attention_heads", 3),
        ("hidden_size", None),
        ("vocab_size", -1),
        ("num_hidden_layers", "two"),
    ],
)
def test_an_impossible_configuration_is_named(key, value):
    with pytest.raises(CheckpointError, match=key):
        PunctuationConfig.from_bert({**CONFIG, key: value}, 5)


def test_a_published_folder_loads_and_constant_and_pooler_keys_are_ignored(tmp_path):
    extra = {
        "bert.embeddings.position_ids": torch.arange(24)[None],
        "bert.pooler.dense.weight": torch.zeros(16, 16),
        "bert.pooler.dense.bias": torch.zeros(16),
    }
    restorer = PunctuationRestorer.from_pretrained(write_folder(tmp_path / "punc", extra=extra))
    assert restorer.name == "FireRedPunc"
    ids = [[5, 6, 7]]
    state = {k: v.double().numpy() for k, v in random_network().state_dict().items()}
    np.testing.assert_allclose(restorer.logits(ids)[0], reference(state, [2, *ids[0]]), atol=2e-4)


def test_input_ids_come_from_the_second_vocabulary(tmp_path):
    turned = VOCABULARY[::-1]
    restorer = PunctuationRestorer.from_pretrained(write_folder(tmp_path / "punc", input_vocabulary=turned))
    pieces = restorer.tokenizer(["你好hello鑫"])[0]
    assert [p.text for p in pieces] == ["你", "好", "hello", "[UNK]"]
    assert [p.id for p in pieces] == [turned.index(p.text) for p in pieces]


def test_half_precision_gives_nearly_the_same_scores(tmp_path):
    folder = write_folder(tmp_path / "punc")
    exact = PunctuationRestorer.from_pretrained(folder).logits([[5, 6, 7, 8]])[0]
    half = PunctuationRestorer.from_pretrained(folder, precision="bfloat16").logits([[5, 6, 7, 8]])[0]
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, exact, atol=0.5)


@pytest.mark.parametrize(
    "name", ["model.pth.tar", "out_dict", "chinese-bert-wwm-ext_vocab.txt", "chinese-lert-base/vocab.txt"]
)
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_folder(tmp_path / "punc")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        PunctuationRestorer.from_pretrained(folder)


def test_parts_that_do_not_fit_are_refused(tmp_path):
    folder = write_folder(tmp_path / "a", extra={"bert.encoder.layer.2.output.dense.bias": torch.zeros(16)})
    with pytest.raises(CheckpointError, match=r"layer\.2"):
        PunctuationRestorer.from_pretrained(folder)
    folder = write_folder(tmp_path / "b")
    (folder / "out_dict").write_text("<space> 0\n， 1\n", encoding="utf8")
    with pytest.raises(CheckpointError, match="out_dict"):
        PunctuationRestorer.from_pretrained(folder)
    folder = write_folder(tmp_path / "c")
    (folder / "chinese-lert-base/config.json").write_text(json.dumps({**CONFIG, "vocab_size": 20}), encoding="utf8")
    with pytest.raises(CheckpointError, match="vocab_size"):
        PunctuationRestorer.from_pretrained(folder)


def test_options_are_checked(tmp_path):
    with pytest.raises(OptionsError, match="precision"):
        PunctuationRestorer.from_pretrained(tmp_path, precision="int3")
    with pytest.raises(OptionsError, match="window_overlap"):
        PunctuationOptions(window_overlap=-1)
    with pytest.raises(OptionsError, match="batch_tokens"):
        PunctuationOptions(batch_tokens=0)


def test_scores_match_the_golden_ones(golden):
    restorer = PunctuationRestorer.from_pretrained(
        golden / "checkpoints/FireRedPunc", options=PunctuationOptions(window_overlap=0)
    )
    manifest = json.loads((golden / "manifest.json").read_text(encoding="utf8"))
    for case in (c for c in manifest["cases"] if c["kind"] == "punc_logits"):
        want = np.load(golden / case["arrays"])["logits"]
        ids = [[p.id for p in pieces] for pieces in restorer.tokenizer(case["inputs"]["texts"])]
        for got, row in zip(restorer.logits(ids), want, strict=True):
            assert got.shape[1] == len(LABELS)
            np.testing.assert_allclose(got, row[: len(got)], atol=2e-3)
