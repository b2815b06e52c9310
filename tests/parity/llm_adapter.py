"""FireRedASR2-LLM, as the golden checker calls it."""

from __future__ import annotations

from lid_adapter import as_source

from vermilion.asr import LlmRecognizer
from vermilion.asr.prompt import target_text
from vermilion.audio import load_audio
from vermilion.decoding.options import DecodingOptions
from vermilion.encoding import Utterance


class Llm:
    def __init__(self, folder):
        self.recognizer = LlmRecognizer.from_pretrained(folder)

    def prompt(self):
        tokenizer = self.recognizer.model.vocabulary.tokenizer
        special = {
            token: tokenizer.token_to_id(token)
            for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<speech>", "user", "assistant")
        }
        return {"prompt_ids": self.recognizer.prompt_ids, "special_ids": special}

    def clean_text(self, text):
        return target_text(text)

    def _speech(self, wav):
        r = self.recognizer
        return r.speech_vectors(*r.front.encode([Utterance(load_audio(as_source(wav)))]))

    def _options(self, cfg, frames):
        # quirk: the published minimum counts prompt and speech
        least = max(0, cfg.get("decode_min_len", 0) - frames - len(self.recognizer.prompt_ids) + 1)
        return DecodingOptions(
            beam_size=cfg.get("beam_size", 3),
            max_tokens=max(0, cfg.get("decode_max_len", 0)),
            min_tokens=least,
            repetition_penalty=cfg.get("repetition_penalty", 1.0),
            llm_length_penalty=cfg.get("llm_length_penalty", 0.0),
            guards=False,  # quirk: text may run away
        )

    def forward(self, wav):
        speech = self._speech(wav)
        [prompt] = self.recognizer.prompts(speech)
        logits, _ = self.recognizer.model.read([prompt])
        return {"speech": speech[0].numpy(), "embeds": prompt.numpy(), "last_logits": logits[0].numpy()}

    def generate(self, wav, cfg):
        speech = self._speech(wav)
        options = self._options(cfg, len(speech[0]))
        [found] = self.recognizer.generate(speech, options, stop_loops=False)  # quirk: it may repeat itself for ever
        best = found.hypotheses[0]
        return best.ids + [self.recognizer.model.vocabulary.end] * best.finished

    def transcribe(self, uttids, wavs, cfg):
        results = []
        for uttid, wav in zip(uttids, wavs, strict=True):
            ids = self.generate(wav, cfg)
            results.append({"uttid": uttid, "text": self.recognizer.model.vocabulary.text(ids).lower()})
        return results


def load_llm(dir):  # noqa: A002 (the checker's name)
    return Llm(dir)
