"""Trains the language identifier: encoder of a recogniser, new decoder, language then dialect (SPEC section 8)."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vermilion.checkpoints.reader import Checkpoint, read_checkpoint, require_files
from vermilion.errors import CheckpointError, TrainingError
from vermilion.languages import fireredlid_label
from vermilion.lid.labels import DIALECTS, LANGUAGES
from vermilion.manifests import Utterance, read_manifest
from vermilion.training.aed import (
    MODEL,
    attention_losses,
    fresh_decoder,
    fresh_encoder,
    load_part,
    sequence_args,
    set_dropout,
    sizes_of,
)
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.log import Report
from vermilion.training.loop import Outcome, begin, train
from vermilion.training.options import PRESETS, AedSizes, DataOptions, LidOptions, TrainingOptions
from vermilion.training.publish import prefixed, prefixed_decoder, publish, write_dictionary
from vermilion.training.speech import SpeechBatch, SpeechData, mean_losses, read_cmvn_or_compute
from vermilion.training.tokens import PAD, SOS, SPECIAL


class LidNetwork(nn.Module):
    """Encoder and label decoder with their loss."""

    def __init__(self, sizes: AedSizes, labels: int, options: LidOptions, checkpointing: bool = False) -> None:
        """Build the networks with fresh weights."""
        super().__init__()
        self.options = options
        self.encoder = fresh_encoder(sizes, 0.0 if options.freeze_encoder else options.dropout, checkpointing)
        self.decoder = fresh_decoder(sizes, labels, options.dropout, checkpointing)

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> dict[str, Tensor]:
        """(N, T, 80), (N,), (N, 1 or 2) labels, (N,) → "loss" and "accuracy" per label and end, "language" accuracy."""
        encoded, frames = self.encoder(features, lengths)
        found = attention_losses(
            self.decoder, encoded, frames, tokens, token_lengths, self.options.label_smoothing if self.training else 0.0
        )
        with torch.no_grad():
            start = tokens.new_full((len(tokens), 1), SOS)
            first = self.decoder.teach(start, encoded, frames)[:, 0].argmax(-1)
        language = (first == tokens[:, 0]).float().mean()
        return {"loss": found["attention"], "accuracy": found["accuracy"], "language": language}

    def published(self) -> dict[str, Tensor]:
        """Weights under their published keys."""
        return {**prefixed(self.encoder, "encoder."), **prefixed_decoder(self.decoder, "lid_decoder.")}


def label_of(utterance: Utterance) -> list[str]:
    """The labels of an utterance: ["en"], or ["zh", "yue"] where its language is "zh yue".

    Raises:
        TrainingError: a code is not one of FireRedLID's.
    """
    label = fireredlid_label(utterance.language)
    if label is None:
        raise TrainingError(
            f"{utterance.id} has the language {utterance.language!r}; expected one of {', '.join(list(LANGUAGES)[:6])} "
            f'… (vermilion.lid.labels), or "zh" and one of {", ".join(DIALECTS)}'
        )
    return label.split()


def label_set(labels: Sequence[Sequence[str]]) -> list[str]:
    """The dictionary: five special tokens, the languages that occur in the order of the report, their dialects."""
    seen = {label for both in labels for label in both}
    return [*SPECIAL[:5], *(x for x in LANGUAGES if x in seen), *(x for x in DIALECTS if x in seen)]


def balanced(labels: Sequence[Sequence[str]], balance: float, most: int) -> list[int]:
    """Numbers of the utterances, those with rare labels several times.

    Args:
        labels: of each utterance.
        balance: 0 = each once, 1 = every label as often as the most frequent.
        most: repeats of an utterance.
    """
    names = [" ".join(both) for both in labels]
    counts = Counter(names)
    largest = max(counts.values())
    repeats = {name: min(most, round((largest / count) ** balance)) for name, count in counts.items()}
    return [i for i, name in enumerate(names) for _ in range(repeats[name])]


def train_lid(
    manifest: str | Path,
    *,
    dev: str | Path | None = None,
    options: LidOptions = LidOptions(),  # noqa: B008 - frozen
    training: TrainingOptions = TrainingOptions(),  # noqa: B008 - frozen
    data: DataOptions = DataOptions(),  # noqa: B008 - frozen
    augment: AugmentOptions = AugmentOptions(),  # noqa: B008 - frozen
    masks: SpecAugmentOptions = SpecAugmentOptions(),  # noqa: B008 - frozen
    report: Report | None = None,
) -> Outcome:
    """Train a language identifier.

    Args:
        manifest: recordings with languages ("en", "zh mandarin" …).
        dev: held-out recordings, for validation; labels that the training set lacks are refused.
        options: where the encoder comes from, sizes, balance of languages.
        training: how long, how fast.
        data: limits and batch sizes.
        augment: of the sound.
        masks: of the features (SpecAugment).
        report: told of the progress.

    Returns:
        How it ended. The model lies in `output_dir/model`, in the published layout.

    Raises:
        ManifestError, CheckpointError, TrainingError, OptionsError: what does not fit; the message says how to go on.
    """
    run = begin(training, report)
    model = training.output_dir / MODEL

    # labels and statistics
    utterances = read_manifest(manifest)
    labels = [label_of(u) for u in utterances]
    dictionary = label_set(labels)
    with run.accelerator.main_process_first():
        model.mkdir(parents=True, exist_ok=True)
        write_dictionary(model / "dict.txt", dictionary)
        if options.encoder is not None:
            shutil.copyfile(require_files(options.encoder, ["cmvn.ark"]) / "cmvn.ark", model / "cmvn.ark")
        extractor = read_cmvn_or_compute(model / "cmvn.ark", utterances, training.seed)

    # data
    def speech(chosen: Sequence[Utterance], labels: Sequence[Sequence[str]], **more: Any) -> SpeechData:
        ids = [[_number(dictionary, label) for label in both] for both in labels]
        return SpeechData(chosen, ids, extractor, data, seed=training.seed, padding=PAD, **more)

    often = balanced(labels, options.balance, options.most_repeats)
    known = speech(
        [utterances[i] for i in often],
        [labels[i] for i in often],
        augment=augment,
        masks=masks if options.mask else None,
    )
    others = read_manifest(dev) if dev is not None else []
    held_out = speech(others, [label_of(u) for u in others]) if others else None

    # network
    network, sizes = network_for(options, len(dictionary), training.gradient_checkpointing)
    set_dropout(network.decoder, options.dropout)

    def loss(network: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = network(batch.features, batch.lengths, batch.tokens, batch.token_lengths)
        return found

    def validate(network: nn.Module) -> dict[str, float]:
        batches = held_out.once(run.device) if held_out is not None else iter(())
        return mean_losses((len(batch.items), loss(network, batch)) for batch in batches)

    outcome = train(
        run,
        network,
        loss,
        known.training(run.device, run.rank, run.world),
        validate=validate if held_out is not None else None,
        settings={"recipe": "lid", "options": options, "data": data, "augment": augment, "masks": masks}
        | {"labels": dictionary, "utterances": len(known)},
    )

    # the finished model
    if outcome.finished and run.accelerator.is_main_process:
        args = published_args(sizes, len(dictionary), options)
        publish(model, args, network.published(), half=options.half, kind="FireRedLID")
    return outcome


def _number(dictionary: Sequence[str], label: str) -> int:
    if label not in dictionary:
        raise TrainingError(
            f"the label {label!r} occurs in the held-out set only: take it out, or add data to train on"
        )
    return dictionary.index(label)


def network_for(options: LidOptions, labels: int, checkpointing: bool) -> tuple[LidNetwork, AedSizes]:
    """Build the network: the encoder that was asked for, its first layers at least, and a new decoder.

    Raises:
        CheckpointError: the encoder has fewer layers than are to be taken.
    """
    if options.encoder is None:
        sizes = PRESETS[options.preset]
        layers = options.encoder_layers or sizes.n_layers_enc
        sizes = replace(sizes, n_layers_enc=layers, n_layers_dec=options.decoder_layers)
        return LidNetwork(sizes, labels, options, checkpointing), sizes
    checkpoint = read_checkpoint(options.encoder)
    sizes = replace(sizes_of(checkpoint), n_layers_dec=options.decoder_layers)
    if options.encoder_layers > sizes.n_layers_enc:
        raise CheckpointError(
            f"{options.encoder} has {sizes.n_layers_enc} encoder layers, not {options.encoder_layers}"
        )
    sizes = replace(sizes, n_layers_enc=options.encoder_layers or sizes.n_layers_enc)
    network = LidNetwork(sizes, labels, options, checkpointing)
    load_part(network.encoder, _first_layers(checkpoint, sizes.n_layers_enc), "encoder.")
    network.encoder.requires_grad_(not options.freeze_encoder)
    return network, sizes


def _first_layers(checkpoint: Checkpoint, count: int) -> Checkpoint:
    """A checkpoint without the encoder layers from number `count` on."""
    prefix = "encoder.layer_stack."
    state = {
        key: value
        for key, value in checkpoint.state.items()
        if not (key.startswith(prefix) and int(key.removeprefix(prefix).split(".")[0]) >= count)
    }
    return replace(checkpoint, state=state)


def published_args(sizes: AedSizes, labels: int, options: LidOptions) -> dict[str, Any]:
    """Hyper-parameters under their published names (SPEC section 2)."""
    return {"lid_odim": labels, "n_layers_lid_dec": sizes.n_layers_dec, **sequence_args(sizes, options.dropout)}
