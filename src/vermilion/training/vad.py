"""Trains the detectors: speech, speech in a stream, and speech, singing and music (SPEC section 9).

`train_detector` reads from top to bottom: recordings, mixes, statistics, network, training, published folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vermilion.audio import FeatureExtractor
from vermilion.audio.cmvn import write_matrix
from vermilion.audio.features import NUM_BINS
from vermilion.checkpoints.layout import detector_layout
from vermilion.checkpoints.reader import load_strict, read_checkpoint, require_files
from vermilion.errors import CheckpointError, TrainingError, VermilionError
from vermilion.nn.dfsmn import Dfsmn, DfsmnConfig
from vermilion.nn.dfsmn_torch import DfsmnNetwork
from vermilion.training.augment import AugmentOptions
from vermilion.training.locking import exclusive
from vermilion.training.log import Report
from vermilion.training.loop import Outcome, begin, train
from vermilion.training.mixes import VOICES, Kind, MixAugmentOptions, Mixer, MixOptions, Sources, read_sources
from vermilion.training.options import TrainingOptions
from vermilion.training.publish import publish
from vermilion.training.stretches import TrimOptions
from vermilion.training.vad_options import DetectorOptions
from vermilion.vad.model import read_model

MODEL = "model"
"""folder of the finished model, inside the output folder"""
FOLDERS = {"vad": "VAD", "stream": "Stream-VAD", "events": "AED"}
"""what the published folders are called"""
STATISTICS = "balance.json"
EPOCH = 1000
"""batches that are called an epoch; mixes never repeat"""
_STATISTICS_EPOCH, _VALIDATION_EPOCH = 1 << 30, (1 << 30) + 1
"""epochs whose mixes no training sees"""
_CALIBRATION = (0.1, 10.0)
"""bounds of the balance between frames with and without sound"""


@dataclass(frozen=True)
class Batch:
    """Mixes as the network sees them."""

    features: Tensor
    """(B, T, 80) float32"""
    labels: Tensor
    """(B, T, outputs) float32, 0 or 1"""
    targets: Tensor
    """labels, or what a teacher made of them"""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.features.to(device), self.labels.to(device), self.targets.to(device))


def outputs_of(options: DetectorOptions) -> tuple[tuple[Kind, ...], ...]:
    """The kinds of sound that each output of a detector stands for."""
    if options.kind == "events":
        return (("speech",), ("singing",), ("music",))
    return (VOICES,) if options.singing_is_speech else (("speech",),)


class MixData:
    """Mixes → batches; a batch is decided by (seed, epoch, index) alone. A dataset for torch's loader."""

    def __init__(
        self,
        mixer: Mixer,
        extractor: FeatureExtractor,
        options: DetectorOptions,
        teacher: tuple[Dfsmn, FeatureExtractor] | None = None,
    ) -> None:
        """Take the parts."""
        self.mixer, self.extractor, self.options, self.teacher = mixer, extractor, options, teacher
        self.outputs = outputs_of(options)

    def one(self, epoch: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Features (T, 80), labels and targets (T, outputs) of one mix."""
        mix = self.mixer(epoch, index)
        labels = mix.labels(self.outputs)
        if self.teacher is None:
            return self.extractor(mix.samples), labels, labels
        network, features = self.teacher
        weight = np.float32(self.options.teacher_weight)
        soft = network(features(mix.samples))
        return self.extractor(mix.samples), labels, (1 - weight) * labels + weight * soft

    def __getitem__(self, place: tuple[int, int, list[int]]) -> tuple[int, int, Batch]:
        """The batch of a place: epoch, index of the batch, numbers of its mixes."""
        epoch, index, numbers = place
        columns = zip(*(self.one(epoch, number) for number in numbers), strict=True)
        return epoch, index, Batch(*(torch.from_numpy(np.stack(column)) for column in columns))

    def batches(
        self, device: torch.device, rank: int = 0, world: int = 1, epoch: int = 0, index: int = 0
    ) -> Iterator[tuple[int, int, Batch]]:
        """Batches without end, from a place on."""
        from torch.utils.data import DataLoader

        loader: DataLoader[Any] = DataLoader(
            _Answers(self),  # type: ignore[arg-type]  # any mapping from places will do
            batch_size=None,
            sampler=_Places(self.options.batch, rank, world, epoch, index),
            num_workers=self.options.workers,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # the loader draws from it; the training's own must not notice
        )
        for answer in loader:
            if isinstance(answer, VermilionError):
                raise answer
            found_epoch, found_index, batch = answer
            yield found_epoch, found_index, batch.to(device)

    def fixed(self, epoch: int, count: int) -> Iterator[Batch]:
        """Some mixes of an epoch once, in batches."""
        for first in range(0, count, self.options.batch):
            numbers = list(range(first, min(count, first + self.options.batch)))
            yield self[epoch, 0, numbers][2]


@dataclass(frozen=True)
class _Answers:
    """Batches, or the error in place of one: the loader would make a traceback of its message."""

    data: MixData

    def __getitem__(self, place: tuple[int, int, list[int]]) -> tuple[int, int, Batch] | VermilionError:
        try:
            return self.data[place]
        except VermilionError as error:
            return error


@dataclass(frozen=True)
class _Places:
    """Which mixes make up each batch of a process."""

    batch: int
    rank: int
    world: int
    epoch: int
    index: int

    def __iter__(self) -> Iterator[tuple[int, int, list[int]]]:
        epoch, index = self.epoch, self.index
        while True:
            if index >= EPOCH:
                epoch, index = epoch + 1, 0
            first = (index * self.world + self.rank) * self.batch
            yield epoch, index, list(range(first, first + self.batch))
            index += 1


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


@exclusive
def train_detector(
    manifests: Mapping[Kind, Sequence[Path]],
    *,
    options: DetectorOptions = DetectorOptions(),  # noqa: B008 - frozen
    training: TrainingOptions = TrainingOptions(),  # noqa: B008 - frozen
    mix: MixOptions = MixOptions(),  # noqa: B008 - frozen
    augment: AugmentOptions = MixAugmentOptions(),  # noqa: B008 - frozen
    trim: TrimOptions = TrimOptions(),  # noqa: B008 - frozen
    report: Report | None = None,
) -> Outcome:
    """Train a detector from scratch, or fine-tune a published one.

    Args:
        manifests: recordings of speech, singing, music and noise (`mixes.read_sources` says what is held out). Without
            music or noise the mixes have none; without singing it is made out of speech where it is needed.
        options: kind, sizes, balance, teacher, where to start.
        training: how long, how fast.
        mix: how often, how loud, how long each kind of sound is.
        augment: of whole mixes, and the speed of clips.
        trim: where clips have sound, if their manifest does not say so.
        report: told of the progress.

    Returns:
        How it ended. The model lies in `output_dir/model`, in the published layout.

    Raises:
        ManifestError, CheckpointError, TrainingError, OptionsError: what does not fit; the message says how to go on.
    """
    run = begin(training, report)
    model = training.output_dir / MODEL

    # recordings and mixes
    mix = possible(mix, manifests, options)
    known, held_out = (read_sources(manifests, part, run.skips) for part in ("train", "dev"))
    mixer = Mixer(known, mix, augment, trim, training.seed, run.skips)
    run.say("data: " + ", ".join(f"{len(lines):,} {kind}" for kind, lines in vars(known).items() if lines))

    # statistics of features, weight of frames with sound: of a model, given, or from mixes
    with run.accelerator.main_process_first():
        extractor, weight = statistics(training.output_dir, mixer, options)
    teacher = read_teacher(options)
    data = MixData(mixer, extractor, options, teacher)

    # network
    network, args = network_for(options)
    positive_weight = torch.tensor(weight, device=run.device)

    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": balanced_loss(network(batch.features), batch.targets, positive_weight)}

    kept: list[Batch] = []

    def validate(network: nn.Module) -> dict[str, float]:
        if not kept:
            judge = Mixer(held_out, mix, augment, trim, training.seed, run.skips)
            kept.extend(MixData(judge, extractor, options).fixed(_VALIDATION_EPOCH, options.validation_mixes))
        return scores(network, kept, run.device, names_of(options), positive_weight)

    outcome = train(
        run,
        network,
        loss,
        lambda epoch, index: data.batches(run.device, run.rank, run.world, epoch, index),
        validate=validate if options.validation_mixes else None,
        settings={"recipe": "vad", "options": _lasting(options), "mix": mix, "augment": augment, "trim": trim},
        data=facts_of(known),
    )

    # the finished model
    if outcome.finished and run.accelerator.is_main_process:
        kind = f"FireRedVAD/{FOLDERS[options.kind]}"
        publish(model, args, network.state_dict(), files=[training.output_dir / "cmvn.ark"], kind=kind)
    return outcome


def facts_of(sources: Sources) -> dict[str, Any]:
    """What a checkpoint keeps, to notice that data have changed."""
    lines = {kind: [(u.id, u.duration) for u in found] for kind, found in vars(sources).items()}
    digest = hashlib.blake2b(json.dumps(lines).encode(), digest_size=16).hexdigest()
    return {"recordings": sum(map(len, lines.values())), "digest": digest}


def _lasting(options: DetectorOptions) -> dict[str, Any]:
    """The options that a training cannot change when it goes on."""
    return {k: v for k, v in asdict(options).items() if k not in ("workers", "validation_mixes")}


def possible(mix: MixOptions, manifests: Mapping[Kind, Sequence[Path]], options: DetectorOptions) -> MixOptions:
    """Leave out of mixes what there are no recordings of.

    Raises:
        TrainingError: it cannot be left out.
    """
    given = {kind for kind, paths in manifests.items() if paths}
    needed = {"speech", "music"} if options.kind == "events" else {"speech"}
    if needed - given:
        missing = " and ".join(sorted(needed - given))
        raise TrainingError(f"no manifest of {missing}: a detector of it cannot be trained")
    if options.kind == "events":
        given |= {"singing"}  # made out of speech
    singing, music, noise = ((kind in given) * getattr(mix, kind) for kind in ("singing", "music", "noise"))
    return replace(mix, singing=singing, music=music, noise=noise)


def network_for(options: DetectorOptions) -> tuple[DfsmnNetwork, dict[str, Any]]:
    """The network, fresh or with the weights to start from, and its hyper-parameters under their published names.

    Raises:
        CheckpointError: the model to start from is damaged or of another kind.
    """
    outputs = len(outputs_of(options))
    if options.init is None:
        ahead = 0 if options.kind == "stream" else options.look_ahead
        config = DfsmnConfig(
            R=options.blocks,
            M=options.layers,
            H=options.hidden,
            P=options.projection,
            N1=options.look_back,
            N2=ahead,
            S2=1 if ahead else 0,
            odim=outputs,
        )
        network = DfsmnNetwork(config, options.dropout)
    else:
        checkpoint = read_checkpoint(options.init)
        config = DfsmnConfig(**detector_layout(checkpoint).sizes)
        if config.odim != outputs or (options.kind == "stream" and config.N2):
            raise CheckpointError(f"{options.init} is no detector of the kind {options.kind}: choose its own kind")
        network = DfsmnNetwork(config, options.dropout)
        load_strict(network, {k: v.float().clone() for k, v in checkpoint.state.items()}, checkpoint.path)
    return network, {**asdict(config), "dropout": options.dropout}


def read_teacher(options: DetectorOptions) -> tuple[Dfsmn, FeatureExtractor] | None:
    """The detector to learn from.

    Raises:
        CheckpointError: it is damaged, or has another number of outputs.
    """
    if options.teacher is None:
        return None
    network, extractor = read_model(options.teacher)
    wanted = len(outputs_of(options))
    if network.config.odim != wanted:
        raise CheckpointError(f"the teacher {options.teacher} has {network.config.odim} output(s) instead of {wanted}")
    return network, extractor


def statistics(output_dir: Path, mixer: Mixer, options: DetectorOptions) -> tuple[FeatureExtractor, list[float]]:
    """Statistics of features and the weight of frames with sound, for each output; kept in the output folder."""
    place, balance = output_dir / "cmvn.ark", output_dir / STATISTICS
    given = require_files(options.init, ["cmvn.ark"]) / "cmvn.ark" if options.init is not None else options.cmvn
    if given is not None and not place.exists():
        FeatureExtractor.from_cmvn(given)  # complains about a damaged file
        place.write_bytes(given.read_bytes())
    if not (place.exists() and balance.exists()):
        sums, shares = _accumulated(mixer, options)
        if not place.exists():
            write_matrix(place, sums)
        weights = [float(np.clip((1 - share) / max(share, 1e-6), *_CALIBRATION)) for share in shares]
        names = names_of(options)
        content = {"share": dict(zip(names, shares, strict=True)), "weight": dict(zip(names, weights, strict=True))}
        balance.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
    found = json.loads(balance.read_text(encoding="utf8"))["weight"]
    computed = [float(found[name]) for name in names_of(options)]
    weights = [options.positive_weight] * len(computed) if options.positive_weight else computed
    return FeatureExtractor.from_cmvn(place), weights


def _accumulated(mixer: Mixer, options: DetectorOptions) -> tuple[NDArray[np.float64], list[float]]:
    """Sums of features as `cmvn.ark` holds them, (2, 81), and the share of frames with sound for each output."""
    plain = FeatureExtractor(np.zeros(NUM_BINS), np.ones(NUM_BINS))
    sums = np.zeros((2, NUM_BINS + 1))
    shares = []
    for index in range(options.statistics_mixes):
        mix = mixer(_STATISTICS_EPOCH, index)
        features = plain.log_mel(mix.samples).astype(np.float64)
        sums[0, :-1] += features.sum(axis=0)
        sums[1, :-1] += np.square(features).sum(axis=0)
        sums[0, -1] += len(features)
        shares.append(mix.labels(outputs_of(options)).mean(axis=0))
    return sums, [float(share) for share in np.mean(shares, axis=0)]


def names_of(options: DetectorOptions) -> list[str]:
    """Names of the outputs in logs."""
    return ["speech", "singing", "music"] if options.kind == "events" else ["speech"]


def balanced_loss(logits: Tensor, targets: Tensor, positive_weight: Tensor) -> Tensor:
    """Mean cross-entropy of frames; those with sound are weighted.

    Args:
        logits: (B, T, outputs).
        targets: (B, T, outputs), 0 to 1.
        positive_weight: (outputs,).
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=positive_weight)


def scores(
    network: nn.Module, batches: Sequence[Batch], device: torch.device, names: Sequence[str], positive_weight: Tensor
) -> dict[str, float]:
    """Loss against the labels; precision, recall and F1 of frames at 0.5 for each output."""
    losses = 0.0
    right, found, wanted = torch.zeros(3, len(names), dtype=torch.float64)
    for batch in batches:
        there = batch.to(device)
        logits = network(there.features)
        losses += float(balanced_loss(logits, there.labels, positive_weight)) * len(there.labels)
        hits, truth = logits > 0, there.labels > 0.5
        for total, count in zip((right, found, wanted), (hits & truth, hits, truth), strict=True):
            total += count.sum(dim=(0, 1)).cpu()
    out = {"loss": losses / sum(len(batch.labels) for batch in batches)}
    for i, name in enumerate(names):
        precision, recall = float(right[i] / max(found[i], 1)), float(right[i] / max(wanted[i], 1))
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        out |= {f"{name}_precision": precision, f"{name}_recall": recall, f"{name}_f1": f1}
    return out
