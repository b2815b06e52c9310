"""Count the words that recordings without speech give, and those that recordings of speech lose, by the sound rules.

    python benchmarks/real/nospeech.py --data ~/real --models starter --sets nospeech,asr-en,asr-nl,vad

Each recording goes through the whole pipeline twice, with the rules of `vermilion.nonspeech` off (keep) and on (the
defaults); what the recogniser heard is remembered in between. Results are kept in DATA/results/nospeech, so that a
run goes on where it was stopped; they hold for the rules of the day: delete them when the rules change.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vermilion import load
from vermilion.audio import load_audio
from vermilion.flags import NO_SPEECH
from vermilion.manifests import Utterance, read_manifest
from vermilion.pipeline import Pipeline, PipelineOptions

OFF = {"on_music": "keep", "on_singing": "keep", "on_noise": "keep"}
Row = dict[str, Any]


class Remembering:
    """A module that answers the same question once."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.known: dict[tuple[bytes, str | None], Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def recognize(
        self, recordings: Sequence[Any], options: Any, /, languages: Sequence[str | None] | None = None
    ) -> list[Any]:
        return [
            self._once(recording, language, options)
            for recording, language in zip(recordings, languages or [None] * len(recordings), strict=True)
        ]

    def _once(self, recording: Any, language: str | None, options: Any) -> Any:
        key = (recording[0].tobytes(), language)
        if key not in self.known:
            more = {"languages": [language]} if getattr(self.inner, "uses_language", False) else {}
            self.known[key] = self.inner.recognize([recording], options, **more)[0]
        return self.known[key]

    def identify(self, recordings: Sequence[Any], /) -> list[Any]:
        for recording in recordings:
            if (recording[0].tobytes(), None) not in self.known:
                self.known[(recording[0].tobytes(), None)] = self.inner.identify([recording])[0]
        return [self.known[(r[0].tobytes(), None)] for r in recordings]

    def forget(self) -> None:
        """Start with a new recording."""
        self.known.clear()


class Both:
    """The pipeline with the rules off and on."""

    def __init__(self, models: str) -> None:
        loaded = load(models, options=PipelineOptions(threads=1))
        self.identifier = Remembering(loaded.identifier) if loaded.identifier is not None else None
        self.recognizer = Remembering(loaded.recognizer)
        self.off, self.on = (
            Pipeline(
                loaded.detector,
                self.identifier,
                self.recognizer,
                None,
                PipelineOptions(threads=1, route="never", **choice),  # type: ignore[arg-type]
                event_detector=loaded.event_detector,
            )
            for choice in (OFF, {})
        )

    def row(self, name: str, utterance: Utterance) -> Row:
        audio = (load_audio(utterance.audio), 16000)
        off, on = self.off.transcribe(audio), self.on.transcribe(audio)
        self.recognizer.forget()
        if self.identifier is not None:
            self.identifier.forget()
        kept = {s.start for s in on.sentences}
        lost = [(s.start, s.end, s.text) for s in off.sentences if s.start not in kept]
        condition = utterance.extra.get("condition", name)
        return {
            "set": name, "id": utterance.id, "condition": condition, "off": words(off.sentences),
            "on": words(on.sentences), "lost": lost, "reference": utterance.text, "segments": len(off.segments),
            "flagged": NO_SPEECH in on.flags,
        }  # fmt: skip


def words(sentences: Sequence[Any]) -> int:
    """Words of a transcript, of scripts without spaces the characters that the recogniser times."""
    return sum(len(s.words) or len(s.text.split()) for s in sentences)


def results(folder: Path) -> list[Row]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")]


def table(rows: Sequence[Row]) -> str:
    """One line per set and condition, then what was lost in recordings of speech."""
    lines = ["| set | condition | recordings | segments | words, rules off | words, rules on |", "|" + " --- |" * 6]
    for key in sorted({(r["set"], r["condition"]) for r in rows}):
        mine = [r for r in rows if (r["set"], r["condition"]) == key]
        counts = [len(mine), *(sum(r[name] for r in mine) for name in ("segments", "off", "on"))]
        lines.append(f"| {' | '.join([*key, *map(str, counts)])} |")
    lost = [f"- {r['id']} at {a:.2f} s: {text!r}" for r in rows if r["set"] != "nospeech" for a, _, text in r["lost"]]
    return "\n".join([*lines, "", "Lost in recordings of speech:", "", *(lost or ["nothing"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that build.py filled")
    parser.add_argument("--models", default="starter")
    parser.add_argument("--sets", default="nospeech,asr-en,asr-es,asr-fr,asr-it,asr-ru,asr-cs,asr-nl,vad")
    parser.add_argument("--limit", type=int, help="only so many recordings of each set")
    parser.add_argument("--known", action="store_true", help="only lay out what earlier runs answered")
    args = parser.parse_args()
    folder = args.data / "results" / "nospeech" / args.models.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    both = None if args.known else Both(args.models)
    for name in args.sets.split(",") if both is not None else ():
        path = folder / f"{name}.jsonl"
        done = {json.loads(line)["id"] for line in path.open(encoding="utf-8")} if path.exists() else set()
        for utterance in read_manifest(args.data / f"{name}.jsonl")[: args.limit]:
            if utterance.id not in done and both is not None:
                row = both.row(name, utterance)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(table(results(folder)))


if __name__ == "__main__":
    main()
