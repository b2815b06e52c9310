"""What stands beside the weights of a punctuation model: vocabularies, settings, labels (SPEC sections 2 and 11)."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vermilion.checkpoints.reader import read_checkpoint, read_dictionary
from vermilion.errors import CheckpointError, missing
from vermilion.punc.tokens import BERT_FOLDER, INPUT_VOCABULARY, UNKNOWN
from vermilion.training.publish import write_dictionary
from vermilion.training.punc_options import PunctuatorOptions
from vermilion.training.punc_text import LABELS

SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
"""first entries of a fresh vocabulary"""
_LABELS = "out_dict"
_LONGEST_WORD = 30


def is_published(folder: Path) -> bool:
    """Whether a folder is a punctuation model, and not a bare BERT."""
    return (folder / _LABELS).exists()


def fresh_folder(folder: Path, texts: Iterable[str], options: PunctuatorOptions) -> None:
    """Make vocabulary and settings of a new model.

    Args:
        folder: of the model.
        texts: as the network will see them, without marks.
        options: sizes.
    """
    vocabulary = build_vocabulary(texts, options)
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": options.dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": options.dropout,
        "hidden_size": options.hidden,
        "initializer_range": 0.02,
        "intermediate_size": options.feed_forward,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": options.positions,
        "model_type": "bert",
        "num_attention_heads": options.heads,
        "num_hidden_layers": options.layers,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
    }
    bert = folder / BERT_FOLDER
    bert.mkdir(parents=True, exist_ok=True)
    _write_json(bert / "config.json", config)
    _write_json(bert / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": options.positions})
    for place in (bert / "vocab.txt", folder / INPUT_VOCABULARY):
        place.write_text("\n".join(vocabulary) + "\n", encoding="utf8")
    write_dictionary(folder / _LABELS, LABELS)


def copied_folder(folder: Path, source: Path) -> None:
    """Take vocabulary and settings of a published model, or of a Hugging Face BERT.

    Raises:
        CheckpointError: files are missing, or the labels are not the four marks.
    """
    published = is_published(source)
    bert = source / BERT_FOLDER if published else source
    (folder / BERT_FOLDER).mkdir(parents=True, exist_ok=True)
    names = ("config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
    wanted = [(bert / name, folder / BERT_FOLDER / name) for name in names]
    words = source / INPUT_VOCABULARY if published else bert / "vocab.txt"
    for place, copy in [*wanted, (words, folder / INPUT_VOCABULARY)]:
        if place.exists():
            shutil.copyfile(place, copy)
        elif place.name not in names[2:]:
            raise CheckpointError(f"{source} lacks {place.relative_to(source)}: no FireRedPunc and no BERT folder")
    if published and [label.strip() for label in read_dictionary(source / _LABELS)] != [x.strip() for x in LABELS]:
        raise CheckpointError(f"{source / _LABELS} does not list none, ， 。 ？ ！: only those can be trained")
    write_dictionary(folder / _LABELS, LABELS)


def initial_weights(source: Path) -> Mapping[str, Tensor]:
    """Weights to start from, under their published keys; a bare BERT has none of the classifier.

    Raises:
        CheckpointError: they cannot be read.
        MissingDependencyError: a Hugging Face folder needs transformers.
    """
    if is_published(source):
        state = read_checkpoint(source).state
    else:
        state = {f"bert.{key}": value for key, value in _bert_weights(source).items()}
    left_out = ("bert.pooler.", "bert.embeddings.position_ids")
    return {key: value.float().clone() for key, value in state.items() if not key.startswith(left_out)}


def _bert_weights(folder: Path) -> dict[str, Tensor]:
    try:
        from transformers import BertModel
    except ImportError as error:
        raise missing("a Hugging Face BERT needs transformers", "training") from error
    try:
        network = BertModel.from_pretrained(str(folder), add_pooling_layer=False, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot read the BERT in {folder}: {error}") from error
    return dict(network.state_dict())


def write_bert_weights(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Write the encoder into the Hugging Face folder, matrices in float16.

    Args:
        folder: of the model.
        state: its weights by published key.
    """
    from safetensors.torch import save_file

    kept = {key.removeprefix("bert."): value for key, value in state.items() if key.startswith("bert.")}
    tensors = {k: (v.half() if v.ndim > 1 else v).cpu().contiguous().clone() for k, v in kept.items()}
    save_file(tensors, folder / BERT_FOLDER / "model.safetensors", metadata={"format": "pt"})


def build_vocabulary(texts: Iterable[str], options: PunctuatorOptions) -> list[str]:
    """Make a WordPiece vocabulary: frequent characters, and pieces of words.

    Args:
        texts: lower case, without marks.
        options: how many pieces, how rare characters may be.

    Returns:
        Entries by id: special ones, characters, "##" forms of those that stand inside words, pieces.
    """
    words = Counter(_words(texts))
    characters: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for word, count in words.items():
        characters.update({word[0]: count})
        for char in word[1:]:
            inside.update({char: count})
    total = characters + inside
    alphabet = sorted(c for c in total if total[c] >= options.min_count)
    continued = [f"##{c}" for c in sorted(inside) if total[c] >= options.min_count]
    # whole words, beginnings and endings by what they save: one piece for many characters, as often as they occur
    gains: Counter[str] = Counter()
    for word, count in words.items():
        if not 1 < len(word) <= _LONGEST_WORD or not set(word) <= set(alphabet):
            continue
        gains[word] += count * (len(word) - 1)
        for cut in range(1, len(word)):
            if cut > 1:
                gains[word[:cut]] += count * (cut - 1) // 2
            if len(word) - cut > 1:
                gains[f"##{word[cut:]}"] += count * (len(word) - cut - 1) // 2
    ranked = sorted(gains, key=lambda piece: (-gains[piece], piece))[: options.pieces]
    return [*SPECIAL, *alphabet, *continued, *sorted(ranked)]


def _words(texts: Iterable[str]) -> Iterator[str]:
    """Words as BERT's tokeniser cuts them."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalise, cut = BertNormalizer(lowercase=True), BertPreTokenizer()
    for text in texts:
        for word, _ in cut.pre_tokenize_str(normalise.normalize_str(text)):
            yield word


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
