"""Trains the recogniser: Conformer encoder, Transformer decoder, joint CTC (arXiv 2501.14350; SPEC sections 3 to 7).

`train_aed` reads from top to bottom: tokens, statistics, data, network, training, published folder.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vermilion.asr.tokenizer import SENTENCEPIECE_FILE, Tokenizer
from vermilion.checkpoints.layout import decoder_layout, encoder_layout, tied_output
from vermilion.checkpoints.reader import Checkpoint, load_strict, read_checkpoint, require_files
from vermilion.errors import CheckpointError
from vermilion.manifests import Utterance
from vermilion.nn.conformer import ConformerConfig, ConformerEncoder
from vermilion.nn.ctc import CtcHead
from vermilion.nn.decoder import DecoderConfig, TransformerDecoder
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.lines import Lines
from vermilion.training.locking import exclusive
from vermilion.training.log import Report
from vermilion.training.loop import Outcome, begin, train
from vermilion.training.lora import add_lora, merge_lora
from vermilion.training.options import AedOptions, AedSizes, DataOptions, TokenOptions, TrainingOptions
from vermilion.training.publish import prefixed, prefixed_decoder, publish
from vermilion.training.speech import SpeechBatch, mean_losses, read_cmvn_or_compute
from vermilion.training.stream import SpeechStream, spoken_lines
from vermilion.training.tokens import EOS, PAD, SOS, build_tokens, encode_texts, said_of_unknown

MODEL = "model"
"""folder of the finished model, inside the output folder"""
IGNORED = -100
"""target of positions that do not count"""


class AedNetwork(nn.Module):
    """Encoder, decoder and CTC head with their joint loss."""

    def __init__(self, sizes: AedSizes, vocabulary: int, options: AedOptions, checkpointing: bool = False) -> None:
        """Build the networks with fresh weights; `options.ctc_weight` > 0 adds the CTC head."""
        super().__init__()
        self.options = options
        self.encoder = fresh_encoder(sizes, options.dropout, checkpointing)
        self.decoder = fresh_decoder(sizes, vocabulary, options.dropout, checkpointing)
        self.ctc = CtcHead(sizes.d_model, vocabulary) if options.ctc_weight > 0 else None

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            features: (N, T, 80) float.
            lengths: (N,) frames.
            tokens: (N, L) ids, anything behind the end.
            token_lengths: (N,).

        Returns:
            "loss" (weighted), "attention" (cross-entropy per token), "ctc" (per token), "accuracy" of the next token.
        """
        encoded, frames = self.encoder(features, lengths)
        smoothing = self.options.label_smoothing if self.training else 0.0
        found = attention_losses(self.decoder, encoded, frames, tokens, token_lengths, smoothing)
        if self.ctc is None:
            return {"loss": found["attention"], **found}
        found["ctc"] = ctc_loss(self.ctc(encoded), frames, tokens, token_lengths)
        weight = self.options.ctc_weight
        return {"loss": (1 - weight) * found["attention"] + weight * found["ctc"], **found}

    def published(self) -> dict[str, Tensor]:
        """Weights under their published keys."""
        state = {**prefixed(self.encoder, "encoder."), **prefixed_decoder(self.decoder, "decoder.")}
        return state | (prefixed(self.ctc, "ctc.") if self.ctc is not None else {})


def fresh_encoder(sizes: AedSizes, dropout: float, checkpointing: bool) -> ConformerEncoder:
    """An encoder with random weights; position biases start like the queries that they are added to."""
    config = ConformerConfig(
        d_model=sizes.d_model,
        n_head=sizes.n_head,
        n_layers=sizes.n_layers_enc,
        kernel_size=sizes.kernel_size,
        dropout=dropout,
        checkpointing=checkpointing,
    )
    encoder = ConformerEncoder(config)
    for name, parameter in encoder.named_parameters():
        if name.endswith(("pos_bias_u", "pos_bias_v")):
            nn.init.xavier_uniform_(parameter)
    return encoder


def fresh_decoder(sizes: AedSizes, vocabulary: int, dropout: float, checkpointing: bool) -> TransformerDecoder:
    """A decoder with random weights; its tied embedding starts so that inputs and scores both have unit size."""
    config = DecoderConfig(
        vocabulary, sizes.d_model, sizes.n_head, sizes.n_layers_dec, dropout=dropout, checkpointing=checkpointing
    )
    decoder = TransformerDecoder(config)
    nn.init.normal_(decoder.tgt_word_emb.weight, std=sizes.d_model**-0.5)
    return decoder


def attention_losses(
    decoder: TransformerDecoder,
    encoded: Tensor,
    frames: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    smoothing: float,
) -> dict[str, Tensor]:
    """Cross-entropy of each token and the end after those before it: "attention" per token, "accuracy"."""
    given, wanted = shifted(tokens, token_lengths)
    scores = decoder.teach(given, encoded, frames).float()
    loss = F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, label_smoothing=smoothing)
    counted = wanted != IGNORED
    right = (scores.detach().argmax(-1) == wanted) & counted
    return {"attention": loss, "accuracy": right.sum() / counted.sum()}


def shifted(tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What the decoder is given, (N, L + 1) with the start in front, and what it must say, with the end behind."""
    n, size = tokens.shape
    places = torch.arange(size + 1, device=tokens.device)
    start = tokens.new_full((n, 1), SOS)
    given = torch.cat([start, tokens], 1).masked_fill(places > lengths[:, None], PAD)
    wanted = torch.cat([tokens, start], 1).masked_fill(places == lengths[:, None], EOS)
    return given, wanted.masked_fill(places > lengths[:, None], IGNORED)


def ctc_loss(log_probs: Tensor, frames: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """CTC loss per token; utterances with too few frames for their tokens do not count.

    Args:
        log_probs: (N, T', V) float32.
        frames: (N,) valid frames.
        tokens: (N, L) ids.
        token_lengths: (N,).
    """
    losses = F.ctc_loss(
        log_probs.transpose(0, 1), tokens, frames, token_lengths, blank=0, reduction="sum", zero_infinity=True
    )
    return losses / token_lengths.sum()


def set_dropout(network: nn.Module, dropout: float) -> None:
    """Give all dropout layers a probability."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


@exclusive
def train_aed(
    manifest: str | Path,
    *,
    dev: str | Path | None = None,
    options: AedOptions = AedOptions(),  # noqa: B008 - frozen
    training: TrainingOptions = TrainingOptions(),  # noqa: B008 - frozen
    data: DataOptions = DataOptions(),  # noqa: B008 - frozen
    tokens: TokenOptions = TokenOptions(),  # noqa: B008 - frozen
    augment: AugmentOptions = AugmentOptions(),  # noqa: B008 - frozen
    masks: SpecAugmentOptions = SpecAugmentOptions(),  # noqa: B008 - frozen
    report: Report | None = None,
) -> Outcome:
    """Train a recogniser from scratch, or fine-tune a published one.

    Args:
        manifest: recordings with texts (see `vermilion.manifests`).
        dev: held-out recordings, for validation.
        options: size, losses, regularisation, where to start.
        training: how long, how fast.
        data: limits and batch sizes.
        tokens: of a new vocabulary.
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

    # what stands beside the weights: tokens and statistics, of the model that is fine-tuned or made from the data
    lines = spoken_lines(manifest, data, run.skips)
    with run.accelerator.main_process_first():
        if options.init is not None:
            copy_companions(options.init, model)
        elif not (model / "dict.txt").exists():
            build_tokens(model, (u.text or "" for u in lines), tokens)
        extractor = read_cmvn_or_compute(model / "cmvn.ark", lines, run.skips, training.seed)
    tokenizer = Tokenizer.from_folder(model)

    # data
    unknown: Counter[str] = Counter()

    def encode(utterances: Sequence[Utterance]) -> list[list[int]]:
        return encode_texts(tokenizer, [u.text or "" for u in utterances], unknown)

    def speech(source: Lines, **more: Any) -> SpeechStream:
        return SpeechStream(source, encode, extractor, data, seed=training.seed, padding=PAD, skips=run.skips, **more)

    known = speech(lines, augment=augment, masks=masks if options.mask else None)
    run.say(f"data: {known.summary()}")
    run.say(said_of_unknown(unknown))
    held_out = speech(spoken_lines(dev, data, run.skips)) if dev is not None else None

    # network
    network, args = network_for(options, len(tokenizer.vocabulary), training.gradient_checkpointing)
    if options.lora_rank:
        add_lora(network, options.lora_rank, options.lora_alpha)

    def loss(network: nn.Module, batch: SpeechBatch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = network(batch.features, batch.lengths, batch.tokens, batch.token_lengths)
        return found

    def before_step(step: int) -> None:
        plain = step < options.plain_steps
        set_dropout(network, 0.0 if plain else options.dropout)
        known.masking = options.mask and not plain

    def validate(network: nn.Module) -> dict[str, float]:
        batches = held_out.once(run.device) if held_out is not None else iter(())
        return mean_losses((int(batch.token_lengths.sum()), loss(network, batch)) for batch in batches)

    outcome = train(
        run,
        network,
        loss,
        known.training(run.device, run.rank, run.world),
        validate=validate if held_out is not None else None,
        before_step=before_step,
        settings={"recipe": "aed", "options": options, "data": data, "augment": augment, "masks": masks},
        data=lines.facts,
    )

    # the finished model
    if outcome.finished and run.accelerator.is_main_process:
        if options.lora_rank:
            merge_lora(network)
        publish(model, args, network.published(), half=options.half, kind="FireRedASR2-AED")
    return outcome


def copy_companions(source: Path, folder: Path) -> None:
    """Bring tokens and statistics of a published model to the new one.

    Raises:
        CheckpointError: dict.txt or cmvn.ark is missing.
    """
    require_files(source, ["dict.txt", "cmvn.ark"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dict.txt", "cmvn.ark", SENTENCEPIECE_FILE):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def network_for(options: AedOptions, vocabulary: int, checkpointing: bool) -> tuple[AedNetwork, dict[str, Any]]:
    """Build the network of a preset, or that of the model to start from with its weights.

    Returns:
        The network, and its hyper-parameters under their published names.

    Raises:
        CheckpointError: the model to start from does not fit its own dictionary or sizes.
    """
    if options.init is None:
        sizes = options.sizes
        return AedNetwork(sizes, vocabulary, options, checkpointing), published_args(sizes, vocabulary, options)
    checkpoint = read_checkpoint(options.init)
    held = decoder_layout(checkpoint, "decoder.").sizes["vocabulary"]
    if held != vocabulary:
        raise CheckpointError(f"{options.init}: dict.txt has {vocabulary} tokens, the model {held}")
    special = [checkpoint.arg(name) for name in ("sos_id", "eos_id", "pad_id")]
    if special != [SOS, EOS, PAD]:
        raise CheckpointError(f"{options.init} numbers start, end and padding {special}, not {[SOS, EOS, PAD]}")
    sizes = sizes_of(checkpoint)
    network = AedNetwork(sizes, vocabulary, options, checkpointing)
    load_part(network.encoder, checkpoint, "encoder.")
    load_part(network.decoder, checkpoint, "decoder.")
    if network.ctc is not None and any(key.startswith("ctc.") for key in checkpoint.state):
        load_part(network.ctc, checkpoint, "ctc.")
    return network, {**published_args(sizes, vocabulary, options), **checkpoint.args}


def sizes_of(checkpoint: Checkpoint) -> AedSizes:
    """Sizes of a published recogniser or language identifier, by its tensors."""
    prefix = "lid_decoder." if any(key.startswith("lid_decoder.") for key in checkpoint.state) else "decoder."
    sizes = decoder_layout(checkpoint, prefix).sizes | encoder_layout(checkpoint).sizes
    names = ("d_model", "n_head", "n_layers_enc", "n_layers_dec", "kernel_size")
    return AedSizes(*(sizes[name] for name in names))


def load_part(network: nn.Module, checkpoint: Checkpoint, prefix: str) -> None:
    """Give a network the weights of one part of a checkpoint, in float32.

    Raises:
        CheckpointError: they do not fit.
    """
    tied = tied_output(checkpoint, prefix)
    state = {k.removeprefix(prefix): v for k, v in tied.state.items() if k.startswith(prefix)}
    # a copy: the file is mapped into memory, and training writes
    own = {k: v.float().clone() if v.is_floating_point() else v.clone() for k, v in state.items()}
    load_strict(network, own, checkpoint.path)
    network.requires_grad_(True)


def published_args(sizes: AedSizes, vocabulary: int, options: AedOptions) -> dict[str, Any]:
    """Hyper-parameters under their published names (SPEC section 2)."""
    return {"odim": vocabulary, **sequence_args(sizes, options.dropout)}


def sequence_args(sizes: AedSizes, dropout: float) -> dict[str, Any]:
    """What recogniser and language identifier share, with the fields that the published code and converters read."""
    return {
        "idim": 80,
        **asdict(sizes),
        "d_inner": 4 * sizes.d_model,
        "subsample": 4,
        "pe_maxlen": 5000,
        "residual_dropout": dropout,
        "dropout_rate": dropout,
        "blank_id": 0,
        "sos_id": SOS,
        "eos_id": EOS,
        "pad_id": PAD,
    }
