"""Trains a CTC head after the fact: encoder and decoder stay bit for bit as they are (arXiv 2603.10420; SPEC 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vermilion.asr.tokenizer import Tokenizer
from vermilion.audio import FeatureExtractor
from vermilion.checkpoints.reader import read_checkpoint
from vermilion.manifests import Utterance
from vermilion.nn.ctc import CtcHead
from vermilion.training.aed import MODEL, copy_companions, ctc_loss, fresh_encoder, load_part, sizes_of
from vermilion.training.augment import AugmentOptions
from vermilion.training.lines import Lines
from vermilion.training.locking import exclusive
from vermilion.training.log import Report
from vermilion.training.loop import Outcome, begin, train
from vermilion.training.options import CtcOptions, DataOptions, TrainingOptions
from vermilion.training.publish import prefixed, publish
from vermilion.training.speech import SpeechBatch, mean_losses
from vermilion.training.stream import SpeechStream, spoken_lines
from vermilion.training.tokens import PAD, encode_texts, said_of_unknown


class CtcTraining(nn.Module):
    """A frozen encoder and the head on it."""

    def __init__(self, encoder: nn.Module, head: CtcHead) -> None:
        """Freeze the encoder."""
        super().__init__()
        self.encoder, self.head = encoder.requires_grad_(False), head

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> dict[str, Tensor]:
        """(N, T, 80), (N,), (N, L), (N,) → "loss" per token and "token_errors", see `greedy_errors`."""
        with torch.no_grad():
            encoded, frames = self.encoder(features, lengths)
        log_probs = self.head(encoded)
        errors = greedy_errors(log_probs, frames, token_lengths)
        return {"loss": ctc_loss(log_probs, frames, tokens, token_lengths), "length_error": errors}


def greedy_errors(log_probs: Tensor, frames: Tensor, token_lengths: Tensor) -> Tensor:
    """By how many tokens the best paths are too long or too short, as a share of all: a quick sign of alignment."""
    best = log_probs.detach().argmax(-1)  # (N, T')
    valid = torch.arange(best.shape[1], device=best.device) < frames[:, None]
    changed = torch.ones_like(valid)
    changed[:, 1:] = best[:, 1:] != best[:, :-1]
    found = ((best != 0) & changed & valid).sum(1)
    return (found - token_lengths).abs().sum() / token_lengths.sum()


@exclusive
def train_ctc(
    folder: str | Path,
    manifest: str | Path,
    *,
    dev: str | Path | None = None,
    options: CtcOptions = CtcOptions(),  # noqa: B008 - frozen
    training: TrainingOptions = TrainingOptions(),  # noqa: B008 - frozen
    data: DataOptions = DataOptions(),  # noqa: B008 - frozen
    augment: AugmentOptions = AugmentOptions(),  # noqa: B008 - frozen
    report: Report | None = None,
) -> Outcome:
    """Give a recogniser a CTC head, for word times and faster searches; its texts do not change.

    Args:
        folder: of the recogniser, published layout.
        manifest: recordings with texts.
        dev: held-out recordings, for validation.
        options: how the head begins.
        training: how long, how fast.
        data: limits and batch sizes.
        augment: of the sound.
        report: told of the progress.

    Returns:
        How it ended. The model lies in `output_dir/model`: the weights of `folder` untouched, and the head.

    Raises:
        ManifestError, CheckpointError, TrainingError, OptionsError: what does not fit; the message says how to go on.
    """
    run = begin(training, report)
    source, model = Path(folder), training.output_dir / MODEL
    checkpoint = read_checkpoint(source)
    with run.accelerator.main_process_first():
        copy_companions(source, model)
    tokenizer, extractor = Tokenizer.from_folder(model), FeatureExtractor.from_cmvn(model / "cmvn.ark")

    # data
    unknown: Counter[str] = Counter()

    def encode(utterances: Sequence[Utterance]) -> list[list[int]]:
        return encode_texts(tokenizer, [u.text or "" for u in utterances], unknown)

    def speech(source: Lines, **more: Any) -> SpeechStream:
        return SpeechStream(source, encode, extractor, data, seed=training.seed, padding=PAD, skips=run.skips, **more)

    lines = spoken_lines(manifest, data, run.skips)
    known = speech(lines, augment=augment)
    run.say(f"data: {known.summary()}")
    run.say(said_of_unknown(unknown))
    held_out = speech(spoken_lines(dev, data, run.skips)) if dev is not None else None

    # network: an encoder without dropout, and the head alone to train
    sizes = sizes_of(checkpoint)
    encoder, head = fresh_encoder(sizes, 0.0, False), CtcHead(sizes.d_model, len(tokenizer.vocabulary))
    load_part(encoder, checkpoint, "encoder.")
    if not options.fresh and any(key.startswith("ctc.") for key in checkpoint.state):
        load_part(head, checkpoint, "ctc.")
    network = CtcTraining(encoder, head)

    def loss(network: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = network(batch.features, batch.lengths, batch.tokens, batch.token_lengths)
        return found

    def validate(network: nn.Module) -> dict[str, float]:
        batches = held_out.once(run.device) if held_out is not None else iter(())
        return mean_losses((int(batch.token_lengths.sum()), loss(network, batch)) for batch in batches)

    outcome = train(
        run,
        network,
        loss,
        known.training(run.device, run.rank, run.world),
        validate=validate if held_out is not None else None,
        settings={"recipe": "ctc", "options": options, "data": data, "augment": augment},
        data=lines.facts,
    )

    # the finished model: what was there before, as it was stored
    if outcome.finished and run.accelerator.is_main_process:
        publish(model, checkpoint.args, {**checkpoint.state, **prefixed(head, "ctc.")}, kind="FireRedASR2-AED")
    return outcome
