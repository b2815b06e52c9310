"""Prompts to be spoken: everyday Mandarin sentences with their English translations, and game dialogue.

    python recipes/mini/prompts.py --packages debs --out data/prompts.jsonl

Sources: PyPI `hsk-sentences-audio` (CC-BY-SA-4.0) and the campaigns of Debian's `wesnoth-1.16-*` packages (GPL-2; only
spoken, no text of it is shipped), English as it is and five languages by its translators. A sentence's set (train, dev,
test) hangs on its text alone, and a Mandarin sentence and its translation are in the same one.
"""

import argparse
import gettext
import hashlib
import io
import json
import random
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

LANGUAGES = ("es", "fr", "it", "ru", "de")
EASY = 3
"""Mandarin up to this level (907 characters) comes first: little speech covers few characters"""
MANDARIN = re.compile(r"[㐀-䶿一-鿿，。？！、；：“”‘’《》…—]+")
ENGLISH = re.compile(r"[A-Za-z' ,.;:?!-]+")
MESSAGE = re.compile(r'message\s*=\s*_\s*"([^"]+)"')


def part(text: str) -> str:
    """Which set a text belongs to: 4 % test, 3 % dev."""
    draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    return "test" if draw < 0.04 else "dev" if draw < 0.07 else "train"


def everyday() -> list[dict]:
    from hsk_sentences_audio import __file__ as package

    found = []
    for row in json.loads((Path(package).parent / "data/sentences.json").read_text(encoding="utf-8")):
        mandarin, english = row["chinese"].strip(), row["translation"]["en"].strip()
        which = part(mandarin)
        if MANDARIN.fullmatch(mandarin):
            found.append({"id": row["id"] + "-zh", "lang": "zh", "text": mandarin, "set": which})
        if ENGLISH.fullmatch(english):
            found.append({"id": row["id"] + "-en", "lang": "en", "text": english, "set": which})
    return found


def dialogue(packages: Path) -> list[dict]:
    texts = set()
    for package in sorted(packages.glob("wesnoth-1.16-*.deb")):
        if "music" in package.name:
            continue
        names = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
        if "/campaigns/" not in names:
            continue
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
        spoken = subprocess.run(
            ["tar", "xO", "--wildcards", "*/campaigns/*.cfg"], input=tar, capture_output=True, check=True
        ).stdout
        for message in MESSAGE.findall(spoken.decode("utf-8", "ignore")):
            plain = re.sub(r"<[^>]+>", "", message).replace("’", "'").replace("\n", " ")
            for sentence in re.split(r"(?<=[.?!])\s+", plain):
                words = sentence.split()
                if 3 <= len(words) <= 20 and ENGLISH.fullmatch(sentence) and sentence[-1] in ".?!":
                    texts.add(" ".join(words))
    return [
        {"id": "dialogue-" + hashlib.sha256(t.encode()).hexdigest()[:10], "lang": "en", "text": t, "set": part(t)}
        for t in sorted(texts)
    ]


def translated(packages: Path, language: str) -> Iterator[tuple[str, str]]:
    """Texts of the campaigns and their translation."""
    for package in sorted(packages.glob("wesnoth-1.16-*.deb")):
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as files:
            for member in files:
                if f"/locale/{language}/LC_MESSAGES/" in member.name and member.name.endswith(".mo"):
                    content = files.extractfile(member)
                    if content is not None:
                        catalogue = gettext.GNUTranslations(content)._catalog
                        yield from ((k, v) for k, v in catalogue.items() if isinstance(k, str) and k)


def level(row: dict) -> int:
    """HSK level of an everyday Mandarin sentence; 0 of everything else."""
    return int(row["id"][3]) if row["lang"] == "zh" else 0


def foreign(packages: Path, language: str, most: int) -> list[dict]:
    """Single sentences of a translation, for language identification."""
    texts = set()
    for _, text in translated(packages, language):
        plain = re.sub(r"<[^>]+>|\$[\w|]+|\^", "", text).replace("\n", " ")
        for sentence in re.split(r"(?<=[.?!])\s+", plain):
            words = sentence.split()
            if 4 <= len(words) <= 14 and sentence[-1] in ".?!" and not re.search(r"[0-9|@/\\{}\[\]_=]", sentence):
                texts.add(" ".join(words))
    chosen = random.Random(5).sample(sorted(texts), min(most, len(texts)))
    return [
        {
            "id": f"{language}-" + hashlib.sha256(t.encode()).hexdigest()[:10],
            "lang": language,
            "text": t,
            "set": part(t),
        }
        for t in chosen
    ]


def main() -> None:
    """Write the prompts, shuffled, so that any beginning of them is a fair sample."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--packages", type=Path, required=True, help="folder with the downloaded .deb files")
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    rows = everyday() + dialogue(given.packages)
    rows += [row for language in LANGUAGES for row in foreign(given.packages, language, 600)]
    random.Random(7).shuffle(rows)
    rows.sort(key=lambda row: level(row) > EASY)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    print(f"{len(rows)} prompts")


if __name__ == "__main__":
    main()
