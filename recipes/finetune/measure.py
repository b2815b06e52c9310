"""Word error rates of two models on the same test sets, as a table.

    python recipes/finetune/measure.py --before FireRedASR2-AED --after data/tuned/model --out RESULTS.md \\
        "seen voice=data/home/test.jsonl" "other voice=data/home/test-voice.jsonl"

A Chinese character counts as a word. Errors are summed over a set: substitutions, deletions and insertions. Behind each
rate stands its 95 % interval over sentences.
"""

import argparse
import re
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from vermilion.asr import AedRecognizer, DecodingOptions
from vermilion.evaluation.significance import interval
from vermilion.manifests import read_manifest
from vermilion.transcript import Failure

WORD = re.compile(r"[㐀-鿿]|[^\W㐀-鿿_]+(?:'[^\W㐀-鿿_]+)?")


def words(text: str) -> list[str]:
    """Words in upper case without marks."""
    return WORD.findall(text.upper())


def measure(model: Path, sets: dict[str, Path], limit: int) -> dict[str, list[tuple[str, str]]]:
    """What was said and heard in each set; a recording that fails counts as deletions."""
    recognizer = AedRecognizer.from_pretrained(model)
    found = {}
    for name, manifest in sets.items():
        lines = [u for u in read_manifest(manifest) if u.text][:limit]
        answers = recognizer.recognize([u.load() for u in lines], DecodingOptions(timestamps=False))
        texts = ["" if isinstance(a, Failure) else a.text for a in answers]
        found[name] = [(u.text or "", text) for u, text in zip(lines, texts, strict=True)]
    return found


def rate(pairs: list[tuple[str, str]]) -> str:
    """Word error rate and its interval."""
    sure = interval(
        [Levenshtein.distance(words(said), words(heard)) for said, heard in pairs],
        [len(words(said)) for said, _ in pairs],
    )
    return f"{100 * sure.value:.1f} % ({100 * sure.low:.1f}–{100 * sure.high:.1f})"


def table(before: dict, after: dict) -> str:
    """The rates side by side, and three sentences of each set."""
    lines = ["| test set | words | word error rate before | after |", "|---|---|---|---|"]
    for name, pairs in before.items():
        count = sum(len(words(said)) for said, _ in pairs)
        lines.append(f"| {name} | {count} | {rate(pairs)} | {rate(after[name])} |")
    lines += ["", "| said | before | after |", "|---|---|---|"]
    for name, pairs in before.items():
        rows = zip(pairs[:3], after[name][:3], strict=True)
        lines += [f"| {text} | {first or '—'} | {second or '—'} |" for (text, first), (_, second) in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("sets", nargs="+", help="name=manifest")
    arguments.add_argument("--before", type=Path, required=True, help="model folder")
    arguments.add_argument("--after", type=Path, required=True, help="model folder")
    arguments.add_argument("--limit", type=int, default=100_000, help="utterances of each set")
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    sets = {name: Path(path) for name, _, path in (each.partition("=") for each in given.sets)}
    found = table(*(measure(model, sets, given.limit) for model in (given.before, given.after)))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(found, encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
