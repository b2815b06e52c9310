"""A tiny random FireRedPunc folder, and a restorer whose network answers as a test wishes."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from vermilion.nn.punctuation import PunctuationConfig, PunctuationNetwork
from vermilion.punc import PunctuationOptions, PunctuationRestorer
from vermilion.punc.tokens import PieceTokenizer

LABELS = [" ", "，", "。", "？", "！"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
HAN = "你好世界今天天气怎么样温度是价格面积第步操作元的我说没问题圆周率"
WORDS = ["hello", "world", "how", "are", "you", "fine", "and", "said", "he", "swift", "taylor", "ok", "queen"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = [
    *SPECIAL,
    *dict.fromkeys(HAN),
    *WORDS,
    *LETTERS,
    *("##" + c for c in LETTERS),
    *"，。？！,.?!'+#%&-=@/:",
]
CONFIG = {
    "hidden_act": "gelu",
    "hidden_size": 16,
    "intermediate_size": 32,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 24,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(VOCABULARY),
}


def random_network(seed: int = 0) -> PunctuationNetwork:
    torch.manual_seed(seed)
    network = PunctuationNetwork(PunctuationConfig.from_bert(CONFIG, len(LABELS)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.5)
    return network.eval()


def write_folder(folder: Path, *, input_vocabulary: list[str] | None = None, extra: Mapping | None = None) -> Path:
    """Write a model folder in the published layout."""
    bert = folder / "chinese-lert-base"
    bert.mkdir(parents=True)
    (bert / "config.json").write_text(json.dumps(CONFIG), encoding="utf8")
    (bert / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf8")
    words = input_vocabulary or VOCABULARY
    (folder / "chinese-bert-wwm-ext_vocab.txt").write_text("\n".join(words) + "\n", encoding="utf8")
    lines = [f"{'<space>' if label == ' ' else label} {i}" for i, label in enumerate(LABELS)]
    (folder / "out_dict").write_text("\n".join(lines) + "\n", encoding="utf8")
    state = {**random_network().state_dict(), **(extra or {})}
    args = argparse.Namespace(odim=len(LABELS), cls_id=words.index("[CLS]"), ignore_index=-1, classifier_dropout=0.1)
    torch.save({"args": args, "model_state_dict": state}, folder / "model.pth.tar")
    return folder


class ScriptedNetwork(nn.Module):
    """Gives each token the label that a function of (row of tokens, place) names, with logit 9."""

    def __init__(self, label: Callable[[list[str], int], int], positions: int = 512) -> None:
        super().__init__()
        self.config = PunctuationConfig.from_bert({**CONFIG, "max_position_embeddings": positions}, len(LABELS))
        self.classifier = nn.Linear(1, 1)
        self.label = label
        self.seen: list[list[str]] = []

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(ids.shape[0], ids.shape[1] - 1, len(LABELS))
        for row, length in enumerate(lengths.tolist()):
            tokens = [VOCABULARY[i] for i in ids[row, 1:length].tolist()]
            self.seen.append(tokens)
            for place in range(len(tokens)):
                out[row, place, self.label(tokens, place)] = 9.0
        return out


def scripted(label: Callable[[list[str], int], int], **options: int) -> PunctuationRestorer:
    tokenizer = PieceTokenizer(VOCABULARY, VOCABULARY)
    network = ScriptedNetwork(label)
    return PunctuationRestorer(network, tokenizer, LABELS, VOCABULARY.index("[CLS]"), PunctuationOptions(**options))


def marked(marks: Mapping[str, str], **options: int) -> PunctuationRestorer:
    """A restorer that puts the given marks after the given tokens."""
    return scripted(lambda tokens, place: LABELS.index(marks.get(tokens[place], " ")), **options)
