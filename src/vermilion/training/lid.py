"""Trains the language identifier: encoder of a recogniser, new decoder, language then dialect (SPEC section 8)."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vermilion.checkpoints.reader import Checkpoint, read_checkpoint, read_dictionary, require_files
from vermilion.errors import CheckpointError, TrainingError
from vermilion.languages import fireredlid_label
from vermilion.lid.labels import DIALECTS, LANGUAGES
from vermilion.manifests import Utterance
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
from vermilion.training.checkpoints import training_checkpoints
from vermilion.training.lines import Lines, Usable
from vermilion.training.locking import exclusive
from vermilion.training.log import Report
from vermilion.training.loop import Outcome, begin, train
from vermilion.training.options import PRESETS, AedSizes, DataOptions, LidOptions, TrainingOptions
from vermilion.training.publish import prefixed, prefixed_decoder, publish, write_dictionary
from vermilion.training.skipping import Skips
from vermilion.training.speech import SpeechBatch, mean_losses, read_cmvn_or_compute
from vermilion.training.stream import SpeechStream
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


def repeats_of(counts: Mapping[str, int], balance: float, most: int) -> dict[str, int]:
    """How often an utterance of each label comes in an epoch: those with rare labels several times.

    Args:
        counts: utterances of each label.
        balance: 0 = each once, 1 = every label as often as the most frequent.
        most: repeats of an utterance.
    """
    largest = max(counts.values())
    return {name: min(most, round((largest / count) ** balance)) for name, count in counts.items()}


def labelled_lines(path: str | Path, options: DataOptions, skips: Skips) -> tuple[Lines, Counter[str]]:
    """The lines of a manifest that have a label, and how often each label occurs.

    Raises:
        ManifestError: it cannot be read.
        TrainingError: too few lines can be used.
    """
    counts: Counter[str] = Counter()

    def judge(utterance: Utterance) -> str:
        try:
            label_of(utterance)
        except TrainingError as error:
            return f"without a known language: {error}"
        return ""

    def note(utterance: Utterance) -> None:
        counts[" ".join(label_of(utterance))] += 1

    usable = Usable(options.min_seconds, options.max_seconds, judge)
    return Lines(path, usable, buffer=options.buffer, skips=skips, note=note), counts


def dictionary_for(labels: Sequence[Sequence[str]], model: Path, going_on: bool) -> list[str]:
    """The labels of the data; those of a training that goes on stay, though some are not in its data any more."""
    dictionary = label_set(labels)
    if going_on and (model / "dict.txt").exists():
        known = read_dictionary(model / "dict.txt")
        if set(dictionary) <= set(known):
            return list(known)
    return dictionary


@exclusive
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
    lines, counts = labelled_lines(manifest, data, run.skips)
    going_on = bool(training_checkpoints(training.output_dir))
    dictionary = dictionary_for([name.split() for name in counts], model, going_on)
    with run.accelerator.main_process_first():
        model.mkdir(parents=True, exist_ok=True)
        write_dictionary(model / "dict.txt", dictionary)
        if options.encoder is not None:
            shutil.copyfile(require_files(options.encoder, ["cmvn.ark"]) / "cmvn.ark", model / "cmvn.ark")
        extractor = read_cmvn_or_compute(model / "cmvn.ark", lines, run.skips, training.seed)

    # data
    def encode(utterances: Sequence[Utterance]) -> list[list[int]]:
        return [[_number(dictionary, label) for label in label_of(u)] for u in utterances]

    def speech(source: Lines, **more: Any) -> SpeechStream:
        return SpeechStream(source, encode, extractor, data, seed=training.seed, padding=PAD, skips=run.skips, **more)

    often = repeats_of(counts, options.balance, options.most_repeats)
    known = speech(
        lines,
        augment=augment,
        masks=masks if options.mask else None,
        repeats=lambda utterance: often[" ".join(label_of(utterance))],
    )
    run.say(f"data: {known.summary()}; {', '.join(f'{name} {count:,}' for name, count in counts.most_common())}")
    held_out = speech(labelled_lines(dev, data, run.skips)[0]) if dev is not None else None

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
        | {"labels": dictionary},
        data=lines.facts,
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
