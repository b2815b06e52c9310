"""Word times for a given text on the posteriors of a CTC head (SPEC section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.alignment import forced_align, raw_times, shifted_times
from vermilion.asr.long_form import pieces_of
from vermilion.asr.tokenizer import SENTENCEPIECE_FILE, Tokenizer
from vermilion.checkpoints.prepared import load_network
from vermilion.checkpoints.reader import Checkpoint, read_checkpoint, require_files, without_constants
from vermilion.encoding import AcousticFront, Utterance, check_finite, load_encoder
from vermilion.errors import CheckpointError, ModelError
from vermilion.runtime import Runtime
from vermilion.transcript import Word

if TYPE_CHECKING:
    from torch import Tensor

    from vermilion.nn.ctc import CtcHead

PIECE_SECONDS = 60.0
"""longest piece that is encoded at once"""


@dataclass(frozen=True)
class CtcAligner:
    """Encoder, CTC head and the vocabulary of both."""

    front: AcousticFront
    ctc: CtcHead
    tokenizer: Tokenizer

    def posteriors(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """CTC posteriors of a recording: (T', V) log-probabilities, 40 ms per row; long audio goes in pieces.

        Raises:
            ModelError: the network failed.
        """

        def work(batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
            check_finite(encoded, lengths)
            return self.rows(encoded, lengths)

        # pieces lie on the grid of encoder frames, so their rows follow each other without a gap
        pieces = [Utterance(piece) for _, piece in pieces_of(samples, PIECE_SECONDS)]
        found = []
        for rows in self.front.run(pieces, work, lambda _: self._nothing()):
            if isinstance(rows, ModelError):
                raise rows
            found.append(rows)
        return np.concatenate(found)

    def _nothing(self) -> NDArray[np.float32]:
        return np.zeros((0, len(self.tokenizer.vocabulary)), dtype=np.float32)

    def rows(self, encoded: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """(T', V) log-probabilities of each utterance of an encoded batch, its valid frames only."""
        import torch

        with torch.inference_mode():  # one by one: the scores of a long batch would fill the memory
            return [self.ctc(row[:n]).cpu().numpy() for row, n in zip(encoded, lengths.tolist(), strict=True)]

    def words(self, text: str, posteriors: NDArray[np.float32], duration: float) -> list[Word] | None:
        """Times and CTC confidences of the words (Chinese: characters) of a text as it is written.

        Args:
            text: what is said, with or without marks and capitals.
            posteriors: (T', V) log-probabilities.
            duration: of the audio in seconds.

        Returns:
            None if the text is too long for so many frames; empty if it has no word that the vocabulary can spell.
        """
        spelled = self.tokenizer.spell(text)
        if all(i == self.tokenizer.unknown for word in spelled for i in word.ids):
            return []
        path = forced_align(posteriors, [i for word in spelled for i in word.ids])
        if path is None:
            return None
        starts, ends = shifted_times(*raw_times(path), duration)
        chances = _run_probabilities(posteriors, path)
        words, first = [], 0
        for word in spelled:
            last = first + len(word.ids)
            confidence = sum(chances[first:last]) / len(word.ids)
            words.append(Word(word.text, starts[first], max(starts[first], ends[last - 1]), confidence))
            first = last
        return words


def load_aligner(folder: str | Path, runtime: Runtime, shared: tuple[AcousticFront, Checkpoint] | None) -> CtcAligner:
    """Take encoder and CTC head out of a FireRedASR2-AED folder; its decoder is not read.

    Args:
        folder: model folder in the published layout.
        runtime: device and precision.
        shared: encoder of another model and the checkpoint that it came from; used if its weights are the same.

    Raises:
        CheckpointError: files are missing, or the checkpoint has no CTC head.
    """
    from vermilion.audio import FeatureExtractor

    path = require_files(folder, ["cmvn.ark", "dict.txt", SENTENCEPIECE_FILE])
    checkpoint = read_checkpoint(path)
    ctc = load_ctc(checkpoint, runtime)
    if ctc is None:
        raise CheckpointError(f"{path} has no CTC head, which word times need")
    features = FeatureExtractor.from_cmvn(path / "cmvn.ark")
    if shared is not None and _same_features(features, shared[0].features) and same_encoder(checkpoint, shared[1]):
        return CtcAligner(shared[0], ctc, Tokenizer.from_folder(path))
    front = AcousticFront(features, load_encoder(checkpoint, runtime), runtime)
    return CtcAligner(front, ctc, Tokenizer.from_folder(path))


def load_ctc(checkpoint: Checkpoint, runtime: Runtime) -> CtcHead | None:
    """The CTC head of a checkpoint; None where it has none, as those of the first generation."""
    from vermilion.nn.ctc import CtcHead

    if not any(key.startswith("ctc.") for key in checkpoint.state):
        return None
    weight = checkpoint.state.get("ctc.ctc_lo.weight")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(f"{checkpoint.path} has a CTC head without ctc.ctc_lo.weight; fetch it again")
    vocabulary, width = weight.shape
    return cast("CtcHead", load_network(lambda: CtcHead(width, vocabulary), checkpoint, "ctc.", runtime))


def same_encoder(one: Checkpoint, other: Checkpoint) -> bool:
    """Tell whether two checkpoints hold the same encoder."""
    import torch

    if one.args.get("n_head") != other.args.get("n_head"):
        return False
    first, second = _encoder_weights(one), _encoder_weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def _encoder_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    kept = without_constants(checkpoint.state)
    return {k: v for k, v in kept.items() if k.startswith("encoder.")}


def _same_features(one: object, other: object) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("mean", "inverse_std"))


def _run_probabilities(log_probs: NDArray[np.float32], path: NDArray[np.int64]) -> list[float]:
    """Best posterior of each aligned token within its run of frames."""
    chances: list[float] = []
    previous = 0
    for frame, label in enumerate(path.tolist()):
        if label:
            chance = float(np.exp(log_probs[frame, label]))
            if label == previous:
                chances[-1] = max(chances[-1], chance)
            else:
                chances.append(chance)
        previous = label
    return chances
