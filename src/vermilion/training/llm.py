"""Trains FireRedASR2-LLM: Conformer encoder, adapter, and a Qwen2 by LoRA (arXiv 2501.14350; SPEC section 12).

`train_llm` reads from top to bottom: parts, data, network, training, published folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from vermilion.asr.language_model import LORA_ALPHA, LORA_PREFIX, LanguageModel, Lora, Vocabulary, load_trainable
from vermilion.asr.llm import ENCODER_FILE, QWEN, lora_of, read_parts
from vermilion.asr.prompt import prompt_text, target_text
from vermilion.audio import FeatureExtractor
from vermilion.checkpoints.reader import Checkpoint, read_checkpoint, require_files
from vermilion.errors import CheckpointError, OptionsError, TrainingError
from vermilion.manifests import Utterance
from vermilion.nn.adapter import SpeechAdapter
from vermilion.nn.conformer import ConformerConfig, ConformerEncoder
from vermilion.nn.lora import LoraLinear
from vermilion.runtime import Runtime
from vermilion.training.aed import MODEL, load_part
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.lines import Lines, Usable
from vermilion.training.llm_options import LlmTrainingOptions
from vermilion.training.locking import exclusive
from vermilion.training.log import Report
from vermilion.training.loop import Outcome, begin, train
from vermilion.training.lora import add_lora
from vermilion.training.options import DataOptions, TrainingOptions
from vermilion.training.publish import PLAIN, prefixed, publish
from vermilion.training.skipping import Skips
from vermilion.training.speech import SpeechBatch, mean_losses
from vermilion.training.stream import SpeechStream

RATE = 2
"""encoder frames that a new adapter joins"""


class LlmNetwork(nn.Module):
    """Encoder, adapter and language model with the loss on the transcript."""

    def __init__(self, encoder: ConformerEncoder, adapter: SpeechAdapter, model: LanguageModel) -> None:
        """Take the parts; what is frozen has no gradients already."""
        super().__init__()
        self.encoder, self.adapter, self.llm = encoder, adapter, model.network
        prompt = model.vocabulary.ids(prompt_text())
        at = prompt.index(model.vocabulary.speech)
        self.before, self.after = prompt[:at], prompt[at + 1 :]
        self.encoder_frozen = not any(p.requires_grad for p in encoder.parameters())

    def train(self, mode: bool = True) -> LlmNetwork:
        """Turn dropout on or off; a frozen encoder has none."""
        super().train(mode)
        self.encoder.train(mode and not self.encoder_frozen)
        return self

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            features: (N, T, 80) float.
            lengths: (N,) frames.
            tokens: (N, L) ids with the end token, anything behind it.
            token_lengths: (N,), the end token counted.

        Returns:
            "loss" (cross-entropy per token of transcript and end), "accuracy" of the next token.
        """
        vectors, starts = self.inputs(features, lengths, tokens, token_lengths)
        # padding stands behind, where causal attention does not look: no mask is needed
        hidden = self.llm.model(inputs_embeds=vectors, use_cache=False).last_hidden_state
        places = torch.arange(hidden.shape[1], device=hidden.device)
        # the vector before a token's place says the token
        speaking = (places >= starts[:, None] - 1) & (places < (starts + token_lengths)[:, None] - 1)
        logits = self.llm.lm_head(hidden[speaking]).float()
        wanted = tokens[torch.arange(tokens.shape[1], device=tokens.device) < token_lengths[:, None]]
        accuracy = (logits.detach().argmax(-1) == wanted).float().mean()
        return {"loss": F.cross_entropy(logits, wanted), "accuracy": accuracy}

    def inputs(self, features: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the language model reads: prompt with the speech's own vectors, then the transcript without its end.

        Returns:
            (N, L, width) vectors, padding behind, and (N,) places of the first token of the transcript.
        """
        table = self.llm.get_input_embeddings()
        before, after = (table(torch.tensor(ids, device=tokens.device)) for ids in (self.before, self.after))
        texts = table(tokens)
        rows, starts = [], []
        for vectors, text, size in zip(self.speech(features, lengths), texts, token_lengths.tolist(), strict=True):
            row = torch.cat([before, vectors.to(before.dtype), after, text[: size - 1]])
            rows.append(row)
            starts.append(len(row) - (size - 1))
        return pad_sequence(rows, batch_first=True), torch.tensor(starts, device=tokens.device)

    def speech(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """Vectors (S, width) of each utterance, as `LlmRecognizer.speech_vectors`: float32, none of padding."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            encoded, frames = self.encoder(features, lengths)
        with torch.autocast(encoded.device.type, enabled=False):
            vectors = self.adapter(encoded.float())
        return [row[: n // self.adapter.rate] for row, n in zip(vectors, frames.tolist(), strict=True)]

    def published(self) -> dict[str, Tensor]:
        """What was trained, under its published keys."""
        state = prefixed(self.adapter, "encoder_projector.")
        if not self.encoder_frozen:
            state |= prefixed(self.encoder, "encoder.")
        for name, layer in self.llm.named_modules():
            if isinstance(layer, LoraLinear):
                state[f"{LORA_PREFIX}{name}.lora_A.default.weight"] = layer.a
                state[f"{LORA_PREFIX}{name}.lora_B.default.weight"] = layer.b
        return state


@dataclass(frozen=True)
class Parts:
    """Where a training starts."""

    encoder: Checkpoint
    """sizes and weights"""
    own: Checkpoint | None
    """adapter and LoRA weights; None = new ones"""
    qwen: Path
    """folder of the language model"""
    cmvn: Path
    """statistics of features"""


def read_start(options: LlmTrainingOptions) -> Parts:
    """Find the parts that the options name.

    Raises:
        CheckpointError: a file is missing or damaged.
        OptionsError: no part is named.
    """
    if options.init is not None:
        folder = require_files(options.init, ["cmvn.ark", QWEN])
        encoder, own = read_parts(folder)
        return Parts(encoder, own, folder / QWEN, folder / "cmvn.ark")
    if options.encoder is None or options.qwen is None:
        raise OptionsError("say where to start: init (a FireRedASR2-LLM folder), or encoder and qwen")
    folder = require_files(options.encoder, ["cmvn.ark"])
    encoder = read_parts(folder)[0] if (folder / ENCODER_FILE).exists() else read_checkpoint(folder)
    return Parts(encoder, None, options.qwen, folder / "cmvn.ark")


@exclusive
def train_llm(
    manifest: str | Path,
    *,
    dev: str | Path | None = None,
    options: LlmTrainingOptions,
    training: TrainingOptions = TrainingOptions(),  # noqa: B008 - frozen
    data: DataOptions = DataOptions(),  # noqa: B008 - frozen
    augment: AugmentOptions = AugmentOptions(),  # noqa: B008 - frozen
    masks: SpecAugmentOptions = SpecAugmentOptions(),  # noqa: B008 - frozen
    report: Report | None = None,
) -> Outcome:
    """Put an encoder and a Qwen2 together and train them, or fine-tune a published FireRedASR2-LLM.

    Args:
        manifest: recordings with texts (see `vermilion.manifests`).
        dev: held-out recordings, for validation.
        options: where to start, what is trained.
        training: how long, how fast; in bfloat16 the frozen language model is held so too.
        data: limits and batch sizes.
        augment: of the sound.
        masks: of the features (SpecAugment).
        report: told of the progress.

    Returns:
        How it ended. The model lies in `output_dir/model`, in the published layout.

    Raises:
        ManifestError, CheckpointError, TrainingError, OptionsError: what does not fit; the message says how to go on.
        ModelError: the language model does not fit into memory.
    """
    if training.precision == "float16":
        raise OptionsError("Qwen2's activations are too large for float16: train in bfloat16 or float32")
    start = read_start(options)
    run = begin(training, report)

    # data
    vocabulary = Vocabulary.from_folder(start.qwen)
    extractor = FeatureExtractor.from_cmvn(start.cmvn)

    def speech(lines: Lines, **more: Any) -> SpeechStream:
        skips = run.skips
        return SpeechStream(
            lines, encode, extractor, data, seed=training.seed, padding=vocabulary.end, skips=skips, **more
        )

    def encode(utterances: Sequence[Utterance]) -> list[list[int]]:
        return target_ids(vocabulary, utterances)

    lines = target_lines(manifest, vocabulary, data, run.skips)
    known = speech(lines, augment=augment, masks=masks if options.mask else None)
    run.say(f"data: {known.summary()}")
    held_out = speech(target_lines(dev, vocabulary, data, run.skips)) if dev is not None else None

    # network
    runtime = Runtime(run.device, training.precision)
    network = network_for(start, options, runtime, training.gradient_checkpointing)

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
        settings={"recipe": "llm", "options": options, "data": data, "augment": augment, "masks": masks},
        data=lines.facts,
    )

    # the finished model
    if outcome.finished and run.accelerator.is_main_process:
        publish_llm(training.output_dir / MODEL, network, start, options)
    return outcome


def target_lines(path: str | Path, vocabulary: Vocabulary, options: DataOptions, skips: Skips) -> Lines:
    """The lines of a manifest whose text can be a target.

    Raises:
        ManifestError: it cannot be read.
        TrainingError: too few lines can be used.
    """

    def judge(utterance: Utterance) -> str:
        try:
            target_ids(vocabulary, [utterance])
        except TrainingError as error:
            return f"with a control token: {error}"
        return "" if utterance.text else "without a text"

    usable = Usable(options.min_seconds, options.max_seconds, judge)
    return Lines(path, usable, buffer=options.buffer, skips=skips)


def target_ids(vocabulary: Vocabulary, utterances: Sequence[Utterance]) -> list[list[int]]:
    """Tokens of each transcript as the model is to write it, and the end; none where the text is only marks.

    Raises:
        TrainingError: a text holds a control token.
    """
    control = vocabulary.tokenizer.get_added_tokens_decoder().keys()
    found = []
    for utterance in utterances:
        ids = vocabulary.ids(target_text(utterance.text or ""))
        if not control.isdisjoint(ids):
            raise TrainingError(f"the text of {utterance.id} holds a control token such as <|im_end|>: take it out")
        found.append([*ids, vocabulary.end] if ids else [])
    return found


def network_for(start: Parts, options: LlmTrainingOptions, runtime: Runtime, checkpointing: bool) -> LlmNetwork:
    """Build the network out of its parts, with gradients where it is trained.

    Args:
        start: the parts.
        options: what is trained.
        runtime: device and precision of the language model; encoder, adapter and LoRA weights are float32.
        checkpointing: compute activations twice instead of keeping them.

    Raises:
        CheckpointError: parts do not fit each other.
        ModelError: the language model does not fit into memory.
    """
    names = ("idim", "d_model", "n_head", "n_layers_enc", "kernel_size")
    sizes = [int(start.encoder.arg(name)) for name in names]
    config = ConformerConfig(*sizes, dropout=options.dropout, checkpointing=checkpointing)
    encoder = ConformerEncoder(config)
    load_part(encoder, start.encoder, "encoder.")
    encoder.requires_grad_(not options.freeze_encoder)
    model = load_trainable(start.qwen, runtime)
    if checkpointing:
        # the old name goes away in transformers 6
        name = "activation_checkpointing_enable"
        enable = getattr(model.network, name, None) or model.network.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    rate = RATE if start.own is None else int(start.own.args.get("encoder_downsample_rate", RATE))
    adapter = SpeechAdapter(config.d_model, model.width, rate)
    if start.own is not None:
        load_part(adapter, start.own, "encoder_projector.")
    if not options.freeze_llm:
        add_lora_weights(model.network, lora_of(start.own) if start.own is not None else None, options)
    return LlmNetwork(encoder, adapter, model)


def add_lora_weights(network: nn.Module, given: Lora | None, options: LlmTrainingOptions) -> None:
    """Give all projections of all layers low-rank additions: those of a checkpoint, or new ones that add nothing yet.

    Raises:
        CheckpointError: the checkpoint's additions do not fit.
    """
    ready = list(given or ())
    ranks = {len(a) for _, a, _, _ in ready} or {options.lora_rank}
    if len(ranks) > 1:
        raise CheckpointError(f"the LoRA weights have several ranks ({sorted(ranks)}); one is expected")
    add_lora(network, ranks.pop(), LORA_ALPHA, within="layers")
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLinear)}
    for layer in layers.values():
        layer.dropout = options.lora_dropout
    for name, a, b, _ in ready:
        if given is None or name not in layers:
            raise CheckpointError(f"the language model has no layer {name} for its LoRA weights")
        layer = layers[name]
        given.check(name, (len(layer.b), layer.a.shape[1]), a, b)
        layer.a.data.copy_(a)
        layer.b.data.copy_(b)


def publish_llm(folder: Path, network: LlmNetwork, start: Parts, options: LlmTrainingOptions) -> Path:
    """Write a FireRedASR2-LLM folder: encoder, adapter and LoRA weights in one file, the encoder's sizes in another.

    Raises:
        TrainingError: a file cannot be written.
    """
    encoder = {k: v for k, v in start.encoder.state.items() if k.startswith("encoder.")}
    plain = {k: v for k, v in start.encoder.args.items() if isinstance(v, PLAIN)}
    publish(folder, plain, None, name=ENCODER_FILE)
    args = {
        "encoder_downsample_rate": network.adapter.rate,
        "use_lora": not options.freeze_llm,
        "freeze_llm": options.freeze_llm,
        "freeze_encoder": options.freeze_encoder,
        "use_flash_attn": False,
        "use_fp16": 0,
    }
    state = {**encoder, **network.published()}
    publish(folder, args, state, files=[start.cmvn], half=options.half, kind="FireRedASR2-LLM")
    _bring_qwen(start.qwen.resolve(), folder / QWEN, options.copy_qwen)
    return folder


def _bring_qwen(source: Path, place: Path, copy: bool) -> None:
    """Copy the language model, or link to it; one that is there stays."""
    if place.exists():
        return
    try:
        place.unlink(missing_ok=True)  # a link to nowhere
        if copy:
            shutil.copytree(source, place)
        else:
            place.symlink_to(source, target_is_directory=True)
    except OSError as error:
        raise TrainingError(f"cannot bring the language model {source} to {place}: {error}") from error
