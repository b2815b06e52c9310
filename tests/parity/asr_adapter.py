"""FireRedASR2-AED, as the golden checker calls it."""

from __future__ import annotations

from dataclasses import replace

from lid_adapter import as_source

from vermilion.asr.aed import AedRecognizer
from vermilion.asr.alignment import even_times, forced_align, raw_times, shifted_times
from vermilion.asr.words import words_of
from vermilion.audio import load_audio
from vermilion.decoding import beam_search
from vermilion.decoding.lm import LanguageModelScorer, load_language_model
from vermilion.decoding.options import DecodingOptions
from vermilion.encoding import Utterance
from vermilion.transcript import Token


def decoding_options(cfg):
    """Options by their published names, with the defaults of the published library."""
    return DecodingOptions(
        beam_size=cfg.get("beam_size", 3),
        nbest=cfg.get("nbest", 1),
        max_tokens=cfg.get("decode_max_len", 0),
        softmax_smoothing=cfg.get("softmax_smoothing", 1.25),
        length_penalty=cfg.get("aed_length_penalty", cfg.get("length_penalty", 0.6)),
        eos_penalty=cfg.get("eos_penalty", 1.0),
        lm_weight=cfg.get("elm_weight", 0.0) if cfg.get("elm_dir", True) else 0.0,  # no model: the weight is idle
        timestamps=cfg.get("return_timestamp", False),
        guards=False,  # quirk: text may run away
        max_segment_seconds=1e6,  # quirk: long audio is never cut
    )


def clamped(tokens):
    """Quirk: a start is pulled back to the end of the token before it."""
    out = []
    for token in tokens:
        before = out[-1].end if out else token.start
        out.append(replace(token, start=min(token.start, before)))
    return out


def published_words(recognition, duration=None):
    """The words of a recognition after the published clamp of its token times."""
    return words_of(clamped(recognition.tokens)) if recognition.words else []


def encoder_frames(samples):
    frames = max(0, 1 + (len(samples) - 400) // 160)
    return (frames + 3) // 4


class Asr:
    def __init__(self, folder):
        self.recognizer = AedRecognizer.from_pretrained(folder)
        self.models = {}

    def _encoded(self, wavs):
        return self.recognizer.front.encode([Utterance(load_audio(as_source(w))) for w in wavs])

    def encode(self, wavs):
        encoded, lengths = self._encoded(wavs)
        return encoded.numpy(), lengths.tolist()

    def beam(self, wavs, cfg, elm_dir=None):
        r = self.recognizer
        options = decoding_options({"beam_size": 1, "softmax_smoothing": 1.0, "length_penalty": 0.0, **cfg})
        encoded, lengths = self._encoded(wavs)
        lm = LanguageModelScorer(self._language_model(elm_dir), options.lm_weight) if elm_dir else None
        limit = options.max_tokens or int(lengths.max())  # quirk: the limit of the longest utterance holds for all
        found = beam_search(
            r.decoder,
            encoded,
            lengths,
            options,
            sos=r.sos,
            eos=r.eos,
            forbidden=r._forbidden,
            lm=lm,
            max_steps=[limit] * len(wavs),
        )
        return [[{"ids": h.ids, "confidence": h.confidence if h.ids else None} for h in nbest] for nbest in found]

    def _language_model(self, folder):
        if folder and folder not in self.models:
            self.models[folder] = load_language_model(folder)
        return self.models.get(folder)

    def ctc(self, wav, ids):
        log_probs = self.recognizer.ctc_log_probs(load_audio(as_source(wav)))
        path = forced_align(log_probs, ids)
        starts, ends = raw_times(path)
        return {"logprobs": log_probs, "alignment": path.tolist(), "starts": starts, "ends": ends}

    def transcribe(self, uttids, wavs, cfg):
        options = decoding_options(cfg)
        samples = [load_audio(as_source(w)) for w in wavs]
        if options.max_tokens == 0:  # quirk: the limit of the longest utterance holds for all
            options = replace(options, max_tokens=max(encoder_frames(x) for x in samples))
        self.recognizer.lm = self._language_model(cfg.get("elm_dir")) if options.lm_weight > 0 else None
        results = self.recognizer.recognize([(x, 16000) for x in samples], options)
        out = []
        for uttid, x, r in zip(uttids, samples, results, strict=True):
            row = {"uttid": uttid, "text": r.text, "confidence": round(r.confidence, 3)}
            row["dur_s"] = round(len(x) / 16000, 3)
            if options.timestamps:
                row["timestamp"] = [[w.text, w.start, w.end] for w in published_words(r)]
            out.append(row)
        return out

    def tokenize(self, text):
        return self.recognizer.tokenizer.encode(text)

    def detokenize(self, ids, clean):
        tokenizer = self.recognizer.tokenizer
        return tokenizer.decode(ids) if clean else tokenizer.join(ids)

    def fix_times(self, ids, starts, ends, dur):
        if starts is None:
            starts, ends = even_times(len(ids), dur)
        else:
            starts, ends = shifted_times(starts, ends, dur)
        tokens = [
            # quirk: <sil> stands as a word of its own; a name that is not special keeps it
            Token(i, "\x00" + t if t == "<sil>" else t, 1.0, s, e)
            for i, t, s, e in zip(
                ids, (self.recognizer.tokenizer.vocabulary[i] for i in ids), starts, ends, strict=True
            )
        ]
        return [[w.text.lstrip("\x00"), w.start, w.end] for w in words_of(clamped(tokens))]


def load_asr(dir):  # noqa: A002 (the checker's name)
    return Asr(dir)


def ctc_times(alignment):
    return raw_times(alignment)
