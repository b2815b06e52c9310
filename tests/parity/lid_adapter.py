"""Language identification, as the golden checker calls it."""

from vermilion.audio import load_audio
from vermilion.encoding import Utterance
from vermilion.lid import LanguageIdentifier


def as_source(wav):
    """The checker passes pairs as (rate, samples)."""
    return (wav[1], wav[0]) if isinstance(wav, tuple) else wav


class Lid:
    def __init__(self, folder):
        self.identifier = LanguageIdentifier.from_pretrained(folder)

    def process(self, uttids, wavs):
        results = self.identifier.identify([as_source(w) for w in wavs])
        return [
            {
                "uttid": uttid,
                "lang": r.label,
                "confidence": round(r.confidence, 3),
                "dur_s": round(len(load_audio(as_source(w))) / 16000, 3),
            }
            for uttid, w, r in zip(uttids, wavs, results, strict=True)
        ]

    def encode(self, wavs):
        encoded, lengths = self.identifier.front.encode([Utterance(load_audio(as_source(w))) for w in wavs])
        return encoded.numpy(), lengths.tolist()


def load_lid(dir):  # noqa: A002 (the checker's name)
    return Lid(dir)
