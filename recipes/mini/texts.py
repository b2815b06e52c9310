"""Punctuated text for the punctuation model: one paragraph a line, in train.txt, dev.txt and test.txt.

    apt-get download debian-handbook libreoffice-help-zh-cn 'wesnoth-1.16-*'
    python recipes/mini/texts.py --packages debs --out data/text

Sources: Debian's handbook (GPL-2+ / CC-BY-SA-3.0) and LibreOffice's help (MPL-2.0) in Mandarin, Wesnoth's campaigns
(GPL-2) in Mandarin and English, and PyPI's `hsk-sentences-audio` (CC-BY-SA-4.0) in both. The texts are only read.
Everyday sentences are joined to paragraphs of two to five, since nobody ends a recording after each.
"""

import argparse
import html
import random
import re
import subprocess
import tempfile
from pathlib import Path

from prompts import everyday, part, translated

HAN = re.compile(r"[㐀-䶿一-鿿]")
MARK = re.compile(r"[，。？！,.?!]")
SKIPPED = re.compile(r"[<>{}|\\=_@#$]|https?:|/[a-z]+/")


def paragraphs(packages: Path, pattern: str, files: str, content: str) -> set[str]:
    """Text of HTML elements of a package's files."""
    found: set[str] = set()
    package = next(packages.glob(pattern))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        for file in Path(folder).rglob(files):
            text = file.read_text(encoding="utf-8", errors="ignore")
            for inner in re.findall(content, text, re.DOTALL):
                found.add(html.unescape(re.sub(r"<[^>]+>", "", inner)))
    return found


def mandarin(text: str) -> str | None:
    """A paragraph with enough Han characters and marks, its blanks put right; None if it is something else."""
    plain = " ".join(text.split())
    plain = re.sub(r"(?<=[㐀-鿿，。？！；：、]) (?=[㐀-鿿])", "", plain)
    if not 12 <= len(plain) <= 400 or SKIPPED.search(plain) or not re.search(r"[。？！]$", plain):
        return None
    return plain if len(HAN.findall(plain)) > 0.6 * len(plain) else None


def english(text: str) -> str | None:
    plain = " ".join(re.sub(r"<[^>]+>", "", text).replace("’", "'").split())
    words = plain.split()
    if not 6 <= len(words) <= 120 or SKIPPED.search(plain) or plain[-1] not in ".?!" or not MARK.search(plain):
        return None
    return plain if re.fullmatch(r"[A-Za-z0-9' ,.;:?!\"()—–-]+", plain) else None


def joined(sentences: list[str], blank: str, random: random.Random) -> list[str]:
    """Short sentences as paragraphs of two to five."""
    rows = []
    while sentences:
        count = random.randint(2, 5)
        rows.append(blank.join(sentences[:count]))
        sentences = sentences[count:]
    return rows


def main() -> None:
    """Write the three sets; a paragraph's set hangs on its text alone."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--packages", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    chance = random.Random(3)
    raw = paragraphs(given.packages, "debian-handbook_*.deb", "zh-CN/*.html", r'<div class="para">(.*?)</div>')
    raw |= paragraphs(given.packages, "libreoffice-help-zh-cn_*.deb", "*.html", r'<p [^>]*class="[^"]*paragraph[^"]*"[^>]*>(.*?)</p>')  # fmt: skip  # noqa: E501
    pairs = list(translated(given.packages, "zh_CN"))
    rows = sorted({p for text in raw | {zh for _, zh in pairs} if (p := mandarin(text))})
    rows += sorted({p for text, _ in pairs if (p := english(text))})
    sets: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for row in rows:
        sets[part(row)].append(row)
    for which, texts in sets.items():
        spoken = [r for r in everyday() if r["set"] == which]
        for language, blank in (("zh", ""), ("en", " ")):
            texts += joined([r["text"] for r in spoken if r["lang"] == language], blank, chance)
        chance.shuffle(texts)
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{which}.txt").write_text("".join(t + "\n" for t in texts), encoding="utf-8")
        han = sum(len(HAN.findall(t)) for t in texts)
        print(f"{which}: {len(texts)} paragraphs, {han} Han characters of {sum(map(len, texts))}")


if __name__ == "__main__":
    main()
