"""Builds the recogniser's vocabulary out of texts: single Chinese characters and English pieces (SPEC section 6)."""

from __future__ import annotations

import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vermilion.asr.tokenizer import SENTENCEPIECE_FILE, Tokenizer, stretches
from vermilion.errors import TrainingError
from vermilion.training.options import TokenOptions
from vermilion.training.publish import write_dictionary

SPECIAL = ("<blank>", "<unk>", "<pad>", "<sos>", "<eos>", "<sil>")
"""first entries of the published dictionary; the blank of CTC is 0"""
PAD, SOS, EOS = 2, 3, 4


def spoken(text: str) -> str:
    """A text as it is trained on: full-width letters made plain, marks and symbols turned into blanks, upper case."""
    plain = unicodedata.normalize("NFKC", text).replace("’", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    return " ".join(kept.upper().split())


def build_tokens(folder: Path, texts: Iterable[str], options: TokenOptions) -> Tokenizer:
    """Build dict.txt and, where the texts have other letters than Chinese, train_bpe1000.model.

    Args:
        folder: where the files are written; made if needed.
        texts: of the training set, as written.
        options: size of the vocabulary.

    Returns:
        Special tokens, then Chinese characters by falling frequency, then pieces in the order of their making.

    Raises:
        TrainingError: the texts hold nothing that is spoken.
    """
    characters: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for text in texts:
        for part, is_character in stretches(spoken(text)):
            (characters if is_character else others)[part] += 1
    if not characters and not others:
        raise TrainingError("the texts hold nothing that is spoken: there is no vocabulary to build")
    folder.mkdir(parents=True, exist_ok=True)
    often = sorted((c for c, n in characters.items() if n >= options.min_count), key=lambda c: (-characters[c], c))
    pieces = _train_pieces(folder / SENTENCEPIECE_FILE, others, options.pieces) if others else []
    write_dictionary(folder / "dict.txt", list(dict.fromkeys([*SPECIAL, *often, *pieces])))
    return Tokenizer.from_folder(folder)


def _train_pieces(place: Path, stretches: Counter[str], size: int) -> list[str]:
    """Train a SentencePiece BPE model and list its pieces; fewer where the texts have no more."""
    import sentencepiece

    model = io.BytesIO()
    letters = len({c for stretch in stretches for c in stretch})
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(s for s, count in sorted(stretches.items()) for s in [s] * count),
            model_writer=model,
            model_type="bpe",
            vocab_size=max(size, letters + 8),
            hard_vocab_limit=False,
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TrainingError(f"the English pieces cannot be built: {error}") from error
    place.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    found = (processor.id_to_piece(i) for i in range(processor.get_piece_size()) if not processor.is_unknown(i))
    return list(found)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], unknown: Counter[str] | None = None) -> list[list[int]]:
    """Token ids of texts as they are trained on; what the vocabulary lacks is counted in `unknown`."""
    found = []
    for text in texts:
        names, ids = tokenizer.encode(spoken(text))
        if unknown is not None:
            unknown.update(n.strip("▁") for n, i in zip(names, ids, strict=True) if i == tokenizer.unknown)
        found.append(ids)
    return found


def said_of_unknown(unknown: Counter[str]) -> str:
    """What a vocabulary lacks, for people; '' = nothing."""
    if not unknown:
        return ""
    most = ", ".join(f"{name or '▁'} ({count})" for name, count in unknown.most_common(8))
    more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
    return f"not in the vocabulary, trained on as <unk>: {most}{more}"
