"""Trains the punctuation restorer: a BERT encoder and one label per token (SPEC section 11).

`train_punctuation` reads from top to bottom: text, vocabulary, windows, network, training, published folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vermilion.checkpoints.reader import load_strict, read_dictionary
from vermilion.errors import TrainingError
from vermilion.nn.punctuation import (
    BertEmbeddings,
    BertEncoder,
    BertLayer,
    PunctuationConfig,
    PunctuationNetwork,
    SelfAttention,
)
from vermilion.punc.tokens import BERT_FOLDER, INPUT_VOCABULARY, PieceTokenizer
from vermilion.training.locking import exclusive
from vermilion.training.log import Report
from vermilion.training.loop import Outcome, begin, train
from vermilion.training.options import TrainingOptions
from vermilion.training.publish import publish
from vermilion.training.punc_folder import copied_folder, fresh_folder, initial_weights, write_bert_weights
from vermilion.training.punc_options import PunctuatorOptions
from vermilion.training.punc_text import (
    COMMA,
    EXCLAMATION,
    FINAL,
    LABELS,
    NONE,
    PERIOD,
    QUESTION,
    Marked,
    NoiseOptions,
    documents,
    joined,
    read_texts,
    with_errors,
)
from vermilion.training.skipping import FEW, Skips

MODEL = "model"
"""folder of the finished model, inside the output folder"""
IGNORED = -100
"""label of padding"""
EPOCH = 1000
"""batches that are called an epoch; windows hardly ever repeat"""
_TRAINING, _VALIDATION = 0, 1
_DEV_SHARE = 0.05
_DISTANCES = ((1, -1, 2, -2), (1, -1, 3, -3))
"""in words: where the heads of the first layers look at first"""
_SHARPNESS = 0.6
NAMES = {COMMA: "comma", PERIOD: "period", QUESTION: "question", EXCLAMATION: "exclamation"}
"""marks in logs"""


@dataclass(frozen=True)
class Batch:
    """Windows as the network sees them."""

    ids: Tensor
    """(N, 1 + T) int64, [CLS] first, padded"""
    lengths: Tensor
    """(N,) tokens, [CLS] included"""
    labels: Tensor
    """(N, T) int64; `IGNORED` for padding"""
    ends: Tensor
    """(N, T) bool: last tokens of words"""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))


class Windows:
    """Windows of running text: where they begin and end is drawn, and so are a recogniser's errors."""

    def __init__(
        self,
        texts: Sequence[Sequence[Marked]],
        tokenizer: PieceTokenizer,
        cls_id: int,
        options: PunctuatorOptions,
        noise: NoiseOptions,
        seed: int,
    ) -> None:
        """Take the text.

        Args:
            texts: running texts.
            tokenizer: words → ids.
            cls_id: what a row begins with.
            options: lengths of windows and of rows.
            noise: errors.
            seed: with the place, decides a window.

        Raises:
            TrainingError: there is no text.
        """
        self.texts = [list(text) for text in texts if text]
        if not self.texts:
            raise TrainingError("there is no punctuated text: no line ends with a mark")
        self.tokenizer, self.cls_id, self.options, self.noise, self.seed = tokenizer, cls_id, options, noise, seed
        # of each text the words that begin a sentence (or are the end)
        self._starts = [_sentence_starts(text) for text in self.texts]
        self._ends = np.cumsum([len(text) for text in self.texts])
        self._others = [marked.word for text in self.texts for marked in text]

    @property
    def words(self) -> int:
        """Words of all texts."""
        return int(self._ends[-1])

    def draw(self, longest: int, rng: np.random.Generator) -> list[Marked]:
        """Draw a window of about 60 to 100 % of a length in words."""
        place = int(rng.integers(self.words))
        number = int(np.searchsorted(self._ends, place, side="right"))
        text, starts = self.texts[number], self._starts[number]
        first = place - int(self._ends[number]) + len(text)
        count = int(rng.integers(max(1, round(0.6 * longest)), longest + 1))
        chances = rng.random(3)
        if chances[0] < self.options.sentence_start:
            first = int(starts[np.searchsorted(starts, first, side="right") - 1])
        last = min(len(text), first + count)
        if chances[1] < self.options.sentence_end:
            nearest = int(starts[np.searchsorted(starts, last, side="right") - 1])
            last = nearest if nearest > first else last
        window = text[first:last]
        if chances[2] < self.noise.share:
            window = with_errors(window, self._others, self.noise, rng)
        return window

    def batch(self, kind: int, epoch: int, index: int) -> Batch:
        """Make the batch of a place: windows of similar length."""
        rng = np.random.default_rng([self.seed, kind, epoch, index])
        low, high = np.log(self.options.shortest_window), np.log(self.options.longest_window + 1)
        # long windows as often as short ones of half the length, so that most words have a context
        longest = int(np.exp(low + (high - low) * np.sqrt(rng.random())))
        longest = min(max(longest, self.options.shortest_window), self.options.longest_window)
        return self.rows([self.draw(longest, rng) for _ in range(max(1, self.options.batch_words // longest))])

    def rows(self, windows: Sequence[Sequence[Marked]]) -> Batch:
        """Turn windows into padded rows; the label of a word stands at its last token."""
        written = [joined(window) for window in windows]
        pieces = self.tokenizer([text for text, _ in written])
        longest = min(max(map(len, pieces)), self.options.positions - 1)
        shape = (len(windows), max(1, longest))
        ids = np.zeros((shape[0], 1 + shape[1]), dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        ends = np.zeros(shape, dtype=bool)
        ids[:, 0] = self.cls_id
        lengths = []
        for row, (window, (_, places), found) in enumerate(zip(windows, written, pieces, strict=True)):
            found = found[: shape[1]]
            ids[row, 1 : 1 + len(found)] = [piece.id for piece in found]
            labels[row, : len(found)] = NONE
            last = _last_pieces([piece.end for piece in found], places)
            for piece, word in last:
                labels[row, piece], ends[row, piece] = window[word].label, True
            lengths.append(1 + len(found))
        return Batch(torch.from_numpy(ids), torch.tensor(lengths), torch.from_numpy(labels), torch.from_numpy(ends))

    def batches(self, device: torch.device, rank: int, world: int, epoch: int, index: int) -> Iterator[Any]:
        """Batches without end, from a place on, for one process of several."""
        while True:
            if index >= EPOCH:
                epoch, index = epoch + 1, 0
            yield epoch, index, self.batch(_TRAINING, epoch, index * world + rank).to(device)
            index += 1

    def fixed(self, windows: int) -> Iterator[Batch]:
        """The same windows every time, as many at least."""
        count = index = 0
        while count < windows:
            batch = self.batch(_VALIDATION, 0, index)
            count, index = count + len(batch.ids), index + 1
            yield batch


def _sentence_starts(text: Sequence[Marked]) -> NDArray[np.int64]:
    ends = [i + 1 for i, marked in enumerate(text) if marked.label in FINAL]
    return np.asarray([0, *ends] if ends and ends[-1] == len(text) else [0, *ends, len(text)], dtype=np.int64)


def _last_pieces(piece_ends: Sequence[int], word_ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(last piece, word) of all words that have pieces."""
    word = 0
    for piece, end in enumerate(piece_ends):
        while word_ends[word] < end:
            word += 1
        following = piece_ends[piece + 1] if piece + 1 < len(piece_ends) else 1 << 60
        if following > word_ends[word]:
            yield piece, word


@exclusive
def train_punctuation(
    texts: Sequence[Path],
    *,
    dev: Sequence[Path] = (),
    options: PunctuatorOptions = PunctuatorOptions(),  # noqa: B008 - frozen
    training: TrainingOptions = TrainingOptions(),  # noqa: B008 - frozen
    noise: NoiseOptions = NoiseOptions(),  # noqa: B008 - frozen
    report: Report | None = None,
) -> Outcome:
    """Train a punctuation restorer from scratch, or fine-tune a BERT or a published one.

    Args:
        texts: punctuated text: plain, or .jsonl with "text".
        dev: held-out text; without, every twentieth stretch of about 1000 words is held out.
        options: sizes, windows, where to start.
        training: how long, how fast.
        noise: errors of a recogniser.
        report: told of the progress.

    Returns:
        How it ended. The model lies in `output_dir/model`, in the published layout.

    Raises:
        CheckpointError, TrainingError, OptionsError: what does not fit; the message says how to go on.
    """
    run = begin(training, report)
    model = training.output_dir / MODEL

    # text
    known = [document for path in texts for document in documents(good_lines(path, run.skips))]
    held_out = [document for path in dev for document in documents(good_lines(path, run.skips))]
    if not dev and options.validation_windows:
        known, held_out = parted(known)

    # vocabulary and settings: of what is started from, or made from the text
    with run.accelerator.main_process_first():
        if not (model / INPUT_VOCABULARY).exists():
            if options.init is not None:
                copied_folder(model, options.init)
            else:
                fresh_folder(model, (joined(document)[0] for document in known), options)
    tokenizer = PieceTokenizer.from_folder(model)
    cls_id = read_dictionary(model / INPUT_VOCABULARY).index("[CLS]")

    # network and windows
    network = network_for(model, options)
    options = replace(options, positions=network.config.max_positions)
    data = Windows(known, tokenizer, cls_id, options, noise, training.seed)
    run.say(f"data: {data.words:,} words; {sum(map(len, held_out)):,} held out")

    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = network(batch.ids, batch.lengths)
        return {"loss": F.cross_entropy(logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)}

    kept: list[Batch] = []

    def validate(network: nn.Module) -> dict[str, float]:
        if not kept:
            clean = Windows(held_out, tokenizer, cls_id, options, replace(noise, share=0.0), 0)
            kept.extend(clean.fixed(options.validation_windows))
        return dict(scores(network, [batch.to(run.device) for batch in kept]))

    outcome = train(
        run,
        network,
        loss,
        lambda epoch, index: data.batches(run.device, run.rank, run.world, epoch, index),
        validate=validate if options.validation_windows else None,
        settings={"recipe": "punc", "options": _lasting(options), "noise": noise},
        data={"words": data.words},
    )

    # the finished model
    if outcome.finished and run.accelerator.is_main_process:
        args = {"odim": len(LABELS), "cls_id": cls_id, "classifier_dropout": options.dropout, "ignore_index": IGNORED}
        publish(model, args, network.state_dict(), half=options.half, kind="FireRedPunc")
        if options.bert_weights:
            write_bert_weights(model, network.state_dict())
    return outcome


def good_lines(path: Path, skips: Skips) -> Iterator[str]:
    """The lines of a file of texts; those that are none are noted and left out.

    Raises:
        TrainingError: the file cannot be read, or too large a share of its lines is bad.
    """
    bad = count = 0

    def note(number: int, error: TrainingError) -> None:
        nonlocal bad
        bad += 1
        skips.note(f"{path.name}, line {number}", str(error))

    for line in read_texts(path, note):
        count += 1
        yield line
    if bad > max(FEW, skips.max_share * (bad + count)):
        skips.failed, skips.tried = bad, bad + count
        skips.refuse()


def _lasting(options: PunctuatorOptions) -> dict[str, Any]:
    """The options that a training cannot change when it goes on."""
    return {k: v for k, v in asdict(options).items() if k not in ("validation_windows", "half", "bert_weights")}


def parted(texts: Sequence[list[Marked]], words: int = 1000) -> tuple[list[list[Marked]], list[list[Marked]]]:
    """Hold out every twentieth stretch of about so many words (the last one, if there are fewer).

    Returns:
        Text for training, text for validation.

    Raises:
        TrainingError: there is only one sentence.
    """
    stretches = [part for text in texts for part in _stretches(text, words)]
    if len(stretches) == 1:
        stretches = list(_stretches(stretches[0], len(stretches[0]) // 2))
    if len(stretches) < 2:
        raise TrainingError("there is too little text to hold some of it out: give dev, or validation_windows 0")
    every = min(len(stretches), round(1 / _DEV_SHARE))
    held = {i for i in range(len(stretches)) if i % every == every - 1}
    return (
        [part for i, part in enumerate(stretches) if i not in held],
        [part for i, part in enumerate(stretches) if i in held],
    )


def _stretches(text: list[Marked], words: int) -> Iterator[list[Marked]]:
    """Cut at ends of sentences."""
    first = 0
    for start in _sentence_starts(text).tolist():
        if start - first >= words or (start == len(text) and start > first):
            yield text[first:start]
            first = start


def network_for(model: Path, options: PunctuatorOptions) -> PunctuationNetwork:
    """The network of a folder's settings, fresh or with the weights to start from.

    Raises:
        CheckpointError: settings or weights do not fit.
    """
    settings = json.loads((model / BERT_FOLDER / "config.json").read_text(encoding="utf8"))
    config = replace(PunctuationConfig.from_bert(settings, len(LABELS)), dropout=options.dropout)
    network = PunctuationNetwork(config)
    fresh_weights(network)
    if options.init is not None:
        given = initial_weights(options.init)
        own = {key: value for key, value in network.state_dict().items() if key.startswith("classifier.")}
        load_strict(network, own | dict(given), options.init)
    return network


@torch.no_grad()
def fresh_weights(network: PunctuationNetwork) -> None:
    """Start so that a small network learns from little text.

    Marks depend on the neighbouring words, and a BERT needs thousands of steps to find out which those are. Here
    positions begin as waves, and the heads of the first two layers begin by looking at words at fixed distances: a
    query is the wave of its own place, turned to the place that it looks at. All of it is trained on.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    config = network.config
    width = config.hidden_size // config.num_heads
    waves = width // 2
    if waves < 4:
        return  # too narrow to tell places apart
    speeds = math.pi * torch.rand(waves)
    angles = torch.arange(config.max_positions)[:, None] * speeds
    table = cast(BertEmbeddings, network.bert["embeddings"]).position_embeddings.weight
    table[:, :waves], table[:, waves : 2 * waves] = 0.08 * angles.cos(), 0.08 * angles.sin()
    layers = cast(BertEncoder, network.bert["encoder"]).layer
    for depth, layer in enumerate(list(layers)[: len(_DISTANCES)]):
        attention = cast(SelfAttention, cast(BertLayer, layer).attention["self"])
        for head in range(config.num_heads):
            distance = _DISTANCES[depth][head % len(_DISTANCES[depth])]
            first = head * width
            turned, straight = _wave_maps(speeds, distance), _wave_maps(speeds, 0)
            for linear, maps in ((attention.query, turned), (attention.key, straight)):
                linear.weight[first : first + 2 * waves] *= 0.1
                linear.weight[first : first + 2 * waves, : 2 * waves] += _SHARPNESS * maps


def _wave_maps(speeds: Tensor, distance: int) -> Tensor:
    """Turns the waves of a place into those of the place at a distance: (2 W, 2 W)."""
    cos, sin = torch.diag((speeds * distance).cos()), torch.diag((speeds * distance).sin())
    return torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])


def scores(network: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Loss; F1 of all marks together; precision, recall and F1 of each, all counted at the ends of words."""
    confusion = torch.zeros(len(LABELS), len(LABELS), dtype=torch.int64)  # wanted, found
    losses, count = 0.0, 0
    for batch in batches:
        logits = network(batch.ids, batch.lengths).float()
        counted = batch.labels != IGNORED
        losses += float(F.cross_entropy(logits[counted], batch.labels[counted], reduction="sum"))
        count += int(counted.sum())
        wanted, found = batch.labels[batch.ends], logits[batch.ends].argmax(-1)
        cells = torch.bincount(wanted * len(LABELS) + found, minlength=confusion.numel())
        confusion += cells.view_as(confusion).cpu()
    right, truth, guesses = confusion.diag(), confusion.sum(1), confusion.sum(0)
    out = {"loss": losses / max(count, 1)}
    out["f1"] = 2 * float(right[1:].sum()) / max(float(truth[1:].sum() + guesses[1:].sum()), 1.0)
    for label, name in NAMES.items():
        hits = float(right[label])
        out[f"{name}_precision"] = hits / max(float(guesses[label]), 1.0)
        out[f"{name}_recall"] = hits / max(float(truth[label]), 1.0)
        out[f"{name}_f1"] = 2 * hits / max(float(truth[label] + guesses[label]), 1.0)
    return out
