"""The whole pipeline and its command line, as the golden checker calls them."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
from asr_adapter import decoding_options, published_words
from punc_adapter import load_punc
from vad_adapter import load_vad

from vermilion.asr import AedRecognizer, LlmRecognizer
from vermilion.audio import load_audio
from vermilion.formats import save
from vermilion.formats.subtitles import SubtitleOptions
from vermilion.lid import LanguageIdentifier
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.transcript import Failure, Sentence, Span, Transcript, VadResult

PUBLISHED_KEYS = ("uttid", "text", "sentences", "vad_segments_ms", "dur_s", "words", "wav_path")


@dataclass
class PublishedDetector:
    """Our detector with the published cuts (quirk: one frame lost at each, truncated frame positions)."""

    detector: Any
    name: str = "FireRedVAD"

    def detect(self, audio):
        samples, rate = audio
        result, probabilities = self.detector.detect((rate, samples))
        return VadResult([Span(a, b) for a, b in result["timestamps"]], probabilities, len(samples) / rate)


@dataclass
class PublishedRecognizer:
    """Our recogniser with the published word times (quirk: a start is pulled back to the end before it)."""

    recognizer: Any
    name: str = "FireRedASR2-AED"

    def recognize(self, recordings, options, /):
        results = self.recognizer.recognize(recordings, options)
        return [
            r if isinstance(r, Failure) else replace(r, words=published_words(r, len(audio[0]) / audio[1]))
            for r, audio in zip(results, recordings, strict=True)
        ]


@dataclass
class PublishedRestorer:
    """Our restorer with the published treatment of blanks and of the length limit (quirk: switched on per call)."""

    restorer: Any
    group: int
    name: str = "FireRedPunc"

    def restore(self, texts, /):
        return self.restorer.process(list(texts))

    def restore_words(self, items, /):
        out = []
        for i in range(0, len(items), self.group):
            rows = [[[w.text, w.start, w.end] for w in words] for words in items[i : i + self.group]]
            for words, sentences in zip(
                items[i : i + self.group], self.restorer.process_with_timestamp(rows), strict=True
            ):
                made = [Sentence(text, start, end) for text, start, end in sentences]
                made[0] = replace(made[0], words=list(words))  # the checker compares words of the whole result only
                out.append(made)
        return out


@dataclass
class System:
    """`process(wav, uttid)` of the checker."""

    pipeline: Pipeline

    def process(self, wav, uttid):
        transcript = self.pipeline.transcribe(wav, utterance_id=uttid)
        if transcript.failures:
            raise transcript.failures[0].error
        return published_result(transcript)


def load_system(root, cfg):
    """Build the pipeline from the published folders with the published quirks of each module."""
    asr_cfg, root = cfg.get("asr_cfg", {}), Path(root)
    decoding = decoding_options(asr_cfg)
    if cfg.get("asr_type") == "llm":
        decoding = llm_decoding(decoding, asr_cfg)
    options = PipelineOptions(
        vad=cfg.get("enable_vad", True),
        lid=cfg.get("enable_lid", True),
        punctuation=cfg.get("enable_punc", True),
        events=False,
        on_music="keep",
        on_singing="keep",
        on_noise="keep",
        raise_quiet=False,
        word_edges="model",  # the published code gives words the times of its CTC head
        decoding=decoding,
    )
    pipeline = Pipeline(
        PublishedDetector(load_vad(str(root / cfg.get("vad_dir", "FireRedVAD/VAD")), cfg.get("vad", {}))),
        LanguageIdentifier.from_pretrained(root / cfg.get("lid_dir", "FireRedLID")) if options.lid else None,
        PublishedRecognizer(_recognizer(root / cfg.get("asr", "FireRedASR2-AED"), cfg)),
        PublishedRestorer(
            load_punc(str(root / cfg.get("punc_dir", "FireRedPunc")), cfg.get("punc", {})),
            cfg.get("punc_batch_size", 1),
        ),
        options,
    )
    return System(pipeline)


def llm_decoding(decoding, cfg):
    """Options of the large recogniser; it uses no language model beside itself."""
    penalties = {k: cfg[k] for k in ("repetition_penalty", "llm_length_penalty") if k in cfg}
    return replace(decoding, lm_weight=0.0, **penalties)


def _recognizer(folder, cfg):
    if cfg.get("asr_type", "aed") == "llm":
        return LlmRecognizer.from_pretrained(folder)
    return AedRecognizer.from_pretrained(folder, lm_dir=cfg.get("asr_cfg", {}).get("elm_dir") or None)


def published_result(transcript: Transcript) -> dict[str, Any]:
    """Our result with the published truncation of times (quirk) and the published join of sentences (quirk)."""
    starts = [s.start for s in transcript.segments]
    result = {k: v for k, v in transcript.to_dict().items() if k in PUBLISHED_KEYS}
    ends = {round(s.end, 3) for s in transcript.segments}
    for sentence, out in zip(transcript.sentences, result["sentences"], strict=True):
        out["start_ms"] = truncated(sentence.start, starts)
        out["end_ms"] = int(sentence.end * 1000) if round(sentence.end, 3) in ends else truncated(sentence.end, starts)
    for word, out in zip(transcript.words, result["words"], strict=True):
        out["start_ms"], out["end_ms"] = truncated(word.start, starts), truncated(word.end, starts)
    result["vad_segments_ms"] = [[int(s.start * 1000), int(s.end * 1000)] for s in transcript.segments]
    result["text"] = published_text([s.text for s in transcript.sentences])
    return result


def published_text(sentences: list[str]) -> str:
    """Quirk: a space between sentences only where . , ! or ? meets a letter (SPEC section 13.7)."""
    return re.sub(r"([.,!?])\s*([a-zA-Z])", r"\1 \2", "".join(sentences))


def truncated(time: float, starts: list[float]) -> int:
    """Milliseconds the published way: segment start and offset are each truncated."""
    segment = max((s for s in starts if s <= time + 1e-6), default=0.0)
    return int(segment * 1000) + int(round(time - segment, 3) * 1000)


def run_cli(checkpoints, wavs, args, outdir):
    """The published system command line: its defaults and its files."""
    a = cli_arguments(args)
    system = load_system(
        checkpoints,
        {
            "asr_cfg": {k: getattr(a, k) for k in ASR_DEFAULTS},
            "asr_type": a.asr_type,
            "asr": a.asr_model_dir or ("FireRedASR2-LLM" if a.asr_type == "llm" else "FireRedASR2-AED"),
            "vad": {k: getattr(a, k) for k in VAD_DEFAULTS} | {"chunk_max_frame": a.vad_chunk_max_frame},
            "punc": {"sentence_max_length": a.punc_sentence_max_length},
            **{f"{k}_dir": d for k in ("vad", "lid", "punc") if (d := getattr(a, f"{k}_model_dir"))},
            **{k: getattr(a, k) for k in ("asr_batch_size", "punc_batch_size")},
            **{f"enable_{k}": bool(getattr(a, f"enable_{k}")) for k in ("vad", "lid", "punc")},
        },
    )
    wavs = sorted(wavs)  # the published command line sorts its inputs
    results = [system.process(wav, Path(wav).stem) for wav in wavs]
    out = Path(outdir)
    lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in results]
    (out / "result.jsonl").write_text("".join(lines), encoding="utf8")
    for wav, result in zip(wavs, results, strict=True):
        write_files(out, wav, result, a)


def write_files(out: Path, wav: str, result: dict[str, Any], a: argparse.Namespace) -> None:
    transcript, name = Transcript.from_dict(result), result["uttid"]
    if a.write_textgrid:
        save(transcript, out / "asr_tg" / f"{name}.TextGrid")
    if a.write_srt:
        save(transcript, out / "asr_srt" / f"{name}.srt", options=SubtitleOptions(layout="sentences"))
    if a.save_segment:
        (out / "vad_segment").mkdir(parents=True, exist_ok=True)
        samples = load_audio(wav)
        for i, (start, end) in enumerate(result["vad_segments_ms"]):
            path = out / "vad_segment" / f"{name}_{i}_{start}_{end}.wav"
            soundfile.write(path, samples[start * 16 : end * 16], 16000, subtype="PCM_16")


VAD_DEFAULTS = {
    "smooth_window_size": 5,
    "speech_threshold": 0.2,
    "min_speech_frame": 20,
    "max_speech_frame": 1000,
    "min_silence_frame": 10,
    "merge_silence_frame": 50,
    "extend_speech_frame": 10,
}


ASR_DEFAULTS = {
    "use_gpu": 1,
    "use_half": 0,
    "beam_size": 3,
    "nbest": 1,
    "decode_max_len": 0,
    "softmax_smoothing": 1.25,
    "aed_length_penalty": 0.6,
    "eos_penalty": 1.0,
    "return_timestamp": 1,
    "decode_min_len": 0,
    "repetition_penalty": 1.0,
    "llm_length_penalty": 0.0,
    "temperature": 1.0,
    "elm_dir": "",
    "elm_weight": 0.0,
}

OTHER_DEFAULTS = {
    # inputs and the output folder come from the checker
    **{"wav_path": "", "wav_dir": "", "wav_scp": "", "sort_wav_by_dur": 0, "outdir": "output"},
    **{"write_textgrid": 1, "write_srt": 1, "save_segment": 0},
    **{"enable_vad": 1, "enable_lid": 1, "enable_punc": 1},
    **{"asr_type": "aed", "asr_model_dir": "", "asr_use_gpu": 1, "asr_use_half": 0, "asr_batch_size": 1},
    **{"vad_model_dir": "", "vad_use_gpu": 1, "vad_chunk_max_frame": 30000},
    **{"lid_model_dir": "", "lid_use_gpu": 1, "lid_use_half": 0},
    **{"punc_model_dir": "", "punc_use_gpu": 1, "punc_batch_size": 1},
    **{"punc_with_timestamp": 1, "punc_sentence_max_length": -1},
}


def cli_arguments(args: list[str]) -> argparse.Namespace:
    """Every option of the published system command line, with its published default (SPEC section 13)."""
    parser = argparse.ArgumentParser()
    for name, value in (VAD_DEFAULTS | ASR_DEFAULTS | OTHER_DEFAULTS).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--wav_paths", nargs="*")
    return parser.parse_args(args)
