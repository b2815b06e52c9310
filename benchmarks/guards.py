"""Does a recogniser run away? Thousands of cuts of random length and content, with the guards and without.

    python benchmarks/guards.py cuts FOLDER --manifests speech.jsonl music.jsonl --count 10000 --output aed.jsonl
    python benchmarks/guards.py cuts starter --manifests speech.jsonl music.jsonl --count 500 --output starter.jsonl
    python benchmarks/guards.py table aed.jsonl starter.jsonl --json guards.json
    python benchmarks/guards.py rates FOLDER --manifests speech.jsonl

`cuts` appends one line per cut and goes on where an earlier run stopped; cut n is the same in every run of one seed
and material. `table` counts, per kind of content:

- crashed: the recogniser gave no answer
- runaway: more tokens than speech of that length can hold, or a loop whose times pile up, that no flag tells of
- silent change: the text differs from that without guards, and no flag says so (must be none)
- bare runaway: the same cuts without guards

`rates` shows how many tokens per second the truth of real speech holds, from which the ceilings are chosen.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vermilion.asr import AedRecognizer, DecodingOptions
from vermilion.asr.tokenizer import Tokenizer
from vermilion.audio import load_audio
from vermilion.loading import load_recognizer
from vermilion.transcript import Failure, Recognition, Token, Word

RATE = 16000
Samples = NDArray[np.float32]
KINDS = ("speech", "music", "noise", "silence", "mixed", "repeated")
SEARCHES = ("beam", "beam", "beam", "greedy", "rescore", "ctc")
"""of the batches in turn, for recognisers that have them"""
BATCH = 32
PER_SECOND = 16.0
"""tokens; `rates` shows how far real speech stays below"""
SLACK = 8
LOOP_TIMES, LOOP_TOKENS, LONGEST_UNIT = 4, 8, 16
PILED_PER_SECOND = 12.0
"""tokens within the loop's own time: nobody repeats a thing so fast"""


# ---- content


@dataclass(frozen=True)
class Material:
    """Recordings by what is in them."""

    speech: list[Path]
    music: list[Path]

    @classmethod
    def of(cls, manifests: Sequence[Path]) -> Material:
        """Lines without a text are music where their condition says so; noise and silence are made here."""
        lines = [(m.parent, json.loads(line)) for m in manifests for line in m.read_text("utf-8").splitlines()]
        speech = [folder / said["audio_filepath"] for folder, said in lines if said.get("text")]
        music = [folder / said["audio_filepath"] for folder, said in lines if said.get("condition") == "music"]
        if not speech or not music:
            raise SystemExit("the manifests need lines with a text, and lines whose condition is music")
        return cls(speech, music)


@lru_cache(maxsize=256)
def _read(path: Path) -> Samples:
    return load_audio(path)


def _filled(samples: Samples, count: int, rng: np.random.Generator) -> Samples:
    """A random part; what is too short begins again."""
    whole = np.resize(samples, max(count, len(samples)))
    start = int(rng.integers(len(whole) - count + 1))
    return whole[start : start + count].copy()


def speech(material: Material, count: int, rng: np.random.Generator) -> Samples:
    """Utterances one after the other, cut anywhere."""
    parts: list[Samples] = []
    while sum(map(len, parts)) < count:
        parts.append(_read(material.speech[int(rng.integers(len(material.speech)))]))
    return _filled(np.concatenate(parts), count, rng)


def music(material: Material, count: int, rng: np.random.Generator) -> Samples:
    """A part of a piece."""
    return _filled(_read(material.music[int(rng.integers(len(material.music)))]), count, rng)


def noise(count: int, rng: np.random.Generator) -> Samples:
    """Noise of any colour, or hum, or clicks."""
    if rng.random() < 0.2:
        return _clicks(count, rng)
    if rng.random() < 0.2:
        return _hum(count, rng)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    shaped = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** rng.uniform(0, 1), count)
    return (shaped / max(float(np.abs(shaped).max()), 1e-9) * 10 ** rng.uniform(-3, -0.3)).astype(np.float32)


def _clicks(count: int, rng: np.random.Generator) -> Samples:
    found = np.zeros(count, np.float32)
    found[rng.integers(count, size=max(1, count // int(rng.integers(800, 16000))))] = rng.uniform(0.1, 1)
    return found


def _hum(count: int, rng: np.random.Generator) -> Samples:
    at = np.arange(count) / RATE
    base = rng.uniform(40, 400)
    return sum(rng.uniform(0, 0.1) * np.sin(2 * np.pi * base * k * at) for k in range(1, 8)).astype(np.float32)


def silence(count: int, rng: np.random.Generator) -> Samples:
    """Zeros, a constant, or what a converter leaves."""
    level = (0.0, 1e-5, 1e-4)[int(rng.integers(3))]
    return (level * rng.standard_normal(count) + (0.01 if rng.random() < 0.2 else 0.0)).astype(np.float32)


def repeated(material: Material, count: int, rng: np.random.Generator) -> Samples:
    """The same short stretch of speech again and again: repeats that are honest."""
    unit = speech(material, int(rng.uniform(0.4, 2.0) * RATE), rng)
    return np.resize(unit, count)


def mixed(material: Material, count: int, rng: np.random.Generator) -> Samples:
    """Several kinds one after the other, at levels far apart, with noise or music below all of it."""
    parts: list[Samples] = []
    for length in np.diff([0, *sorted(rng.integers(count + 1, size=int(rng.integers(1, 5)))), count]):
        if length > 0:
            kind = KINDS[int(rng.integers(4))]
            parts.append(content(kind, material, int(length), rng) * np.float32(10 ** rng.uniform(-2, 0.5)))
    below = noise(count, rng) if rng.random() < 0.5 else music(material, count, rng)
    return np.clip(np.concatenate(parts) + below * np.float32(10 ** rng.uniform(-3, 0)), -1, 1).astype(np.float32)


def content(kind: str, material: Material, count: int, rng: np.random.Generator) -> Samples:
    """So many samples of a kind."""
    if kind == "noise":
        return noise(count, rng)
    if kind == "silence":
        return silence(count, rng)
    return {"speech": speech, "music": music, "repeated": repeated, "mixed": mixed}[kind](material, count, rng)


def cut(number: int, seed: int, material: Material) -> tuple[str, Samples]:
    """Cut n: its kind and samples; a hundredth is longer than any model's limit, a few are shorter than a frame."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[int(rng.choice(len(KINDS), p=[0.25, 0.15, 0.15, 0.05, 0.3, 0.1]))]
    seconds = rng.uniform(60, 90) if rng.random() < 0.01 else 10 ** rng.uniform(-2, 1.4)
    return kind, content(kind, material, max(1, int(seconds * RATE)), rng)


# ---- judgement


def loops(ids: Sequence[object]) -> Iterator[tuple[int, int]]:
    """(first, behind the last) place of every unit that stands in a row too often."""
    place = 0
    while place < len(ids):
        ends = [_loop_end(ids, place, size) for size in range(1, LONGEST_UNIT + 1)]
        if max(ends) > place:
            yield place, max(ends)
        place = max(place + 1, *ends)


def _loop_end(ids: Sequence[object], place: int, size: int) -> int:
    unit, times = ids[place : place + size], 1
    while len(unit) == size and ids[place + times * size : place + (times + 1) * size] == unit:
        times += 1
    return place + times * size if times >= LOOP_TIMES and times * size >= LOOP_TOKENS else place


def is_runaway(found: Recognition, seconds: float) -> bool:
    """Whether there are more tokens than speech has, or a loop whose times pile up."""
    units: Sequence[Token | Word] = found.tokens or found.words
    if len(units) > SLACK + PER_SECOND * seconds:
        return True
    keys = [u.text.casefold() for u in units]
    return any(_is_piled(units[first:end]) for first, end in loops(keys))


def _is_piled(units: Sequence[Token | Word]) -> bool:
    start, end = units[0].start, units[-1].end
    return start is not None and end is not None and len(units) > PILED_PER_SECOND * max(end - start, 0.01)


def verdict(guarded: Recognition | Failure, bare: Recognition | Failure, seconds: float) -> dict[str, object]:
    """What is written of a cut."""
    if isinstance(guarded, Failure) or isinstance(bare, Failure):
        failed = guarded if isinstance(guarded, Failure) else bare
        return {"crashed": str(failed)}
    return {
        "text": guarded.text,
        "tokens": len(guarded.tokens or guarded.words),
        "flags": guarded.flags,
        "runaway": is_runaway(guarded, seconds) and not guarded.flags,
        "runaway_flagged": is_runaway(guarded, seconds) and bool(guarded.flags),
        "changed": guarded.text != bare.text,
        "bare_tokens": len(bare.tokens or bare.words),
        "bare_runaway": is_runaway(bare, seconds),
    }


# ---- commands


def run_cuts(args: argparse.Namespace) -> None:
    """Recognise what the output file does not hold yet."""
    material = Material.of(args.manifests)
    recognizer = load_recognizer(args.model)
    searches = SEARCHES if isinstance(recognizer, AedRecognizer) and recognizer.ctc is not None else ("beam",)
    lines = args.output.read_text("utf-8").splitlines() if args.output.exists() else []
    done = {json.loads(line)["cut"] for line in lines}
    with args.output.open("a", encoding="utf-8") as file:
        for start in range(0, args.count, BATCH):
            numbers = [n for n in range(start, min(start + BATCH, args.count)) if n not in done]
            options = DecodingOptions(search=searches[start // BATCH % len(searches)])
            for line in judged(recognizer, numbers, [cut(n, args.seed, material) for n in numbers], options):
                file.write(json.dumps({**line, "model": args.model}, ensure_ascii=False) + "\n")
            file.flush()


def judged(
    recognizer: AedRecognizer, numbers: list[int], cuts: list[tuple[str, Samples]], options: DecodingOptions
) -> Iterator[dict[str, object]]:
    """One line for each cut."""
    if not cuts:
        return
    audio = [(samples, RATE) for _, samples in cuts]
    guarded = recognizer.recognize(audio, replace(options, guards=True))
    bare = recognizer.recognize(audio, replace(options, guards=False))
    for number, (kind, samples), with_guards, without in zip(numbers, cuts, guarded, bare, strict=True):
        seconds = len(samples) / RATE
        about = {"cut": number, "kind": kind, "seconds": round(seconds, 3), "search": options.search}
        yield {**about, **verdict(with_guards, without, seconds)}


COLUMNS = ("cuts", "hours", "with text", "crashed", "runaway", "silent change", "bare runaway")


def _title(model: str) -> str:
    """What a table calls a model: its name, or the end of its folder's path."""
    return "/".join(Path(model).parts[-2:])


def run_table(args: argparse.Namespace) -> None:
    """Counts per model and kind, and of each flag."""
    groups: dict[str, list[dict]] = defaultdict(list)
    for path in args.results:
        for line in map(json.loads, path.read_text("utf-8").splitlines()):
            for kind in (line["kind"], "all"):
                groups[f"{_title(line['model'])} {kind}"].append(line)
    counted = {name: counts(lines) for name, lines in groups.items()}
    flags = sorted({flag for found in counted.values() for flag in found["flags"]})
    print("| model, content | " + " | ".join([*COLUMNS, *flags]) + " |\n|---|" + "---:|" * (len(COLUMNS) + len(flags)))
    for name, found in sorted(counted.items()):
        cells = [*(found[c] for c in COLUMNS), *(found["flags"].get(f, 0) for f in flags)]
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    if args.json:
        args.json.write_text(json.dumps(counted, indent=1), "utf-8")


def counts(lines: Iterable[dict]) -> dict:
    """The figures of one row."""
    lines = list(lines)
    return {
        "cuts": len(lines),
        "hours": round(sum(line["seconds"] for line in lines) / 3600, 2),
        "with text": sum(bool(line.get("text")) for line in lines),
        "crashed": sum("crashed" in line for line in lines),
        "runaway": sum(line.get("runaway", False) for line in lines),
        "silent change": sum(line.get("changed", False) and not line["flags"] for line in lines),
        "bare runaway": sum(line.get("bare_runaway", False) for line in lines),
        "flags": dict(Counter(flag for line in lines for flag in line.get("flags", []))),
    }


def run_rates(args: argparse.Namespace) -> None:
    """Tokens per second of the truth: characters and pieces apart, the fastest first."""
    tokenizer = Tokenizer.from_folder(Path(args.model))
    rates: dict[str, list[float]] = defaultdict(list)
    for line in (json.loads(x) for m in args.manifests for x in m.read_text("utf-8").splitlines()):
        if line.get("text") and line["duration"] >= args.least_seconds:
            tokens, _ = tokenizer.encode(line["text"].upper())
            wide = sum("\u3400" <= token[:1] <= "\u9fff" for token in tokens)
            rates["characters" if wide > len(tokens) / 2 else "pieces"].append(len(tokens) / line["duration"])
    for name, found in sorted(rates.items()):
        middle, high, most = np.percentile(found, [50, 99, 100])
        print(f"{name}: {len(found)} utterances, median {middle:.1f}, p99 {high:.1f}, most {most:.1f} per second")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    cuts_parser = commands.add_parser("cuts")
    cuts_parser.add_argument("model", help="starter, mini or a folder")
    cuts_parser.add_argument("--manifests", nargs="+", type=Path, required=True)
    cuts_parser.add_argument("--count", type=int, default=10_000)
    cuts_parser.add_argument("--seed", type=int, default=0)
    cuts_parser.add_argument("--output", type=Path, required=True)
    cuts_parser.set_defaults(run=run_cuts)
    table = commands.add_parser("table")
    table.add_argument("results", nargs="+", type=Path)
    table.add_argument("--json", type=Path)
    table.set_defaults(run=run_table)
    rates = commands.add_parser("rates")
    rates.add_argument("model", help="FireRedASR2-AED folder, for its vocabulary")
    rates.add_argument("--manifests", nargs="+", type=Path, required=True)
    rates.add_argument("--least-seconds", type=float, default=1.0)
    rates.set_defaults(run=run_rates)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
