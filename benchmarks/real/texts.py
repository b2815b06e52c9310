"""What is said in the clips, and punctuated sentences: out of the files that the packages hold."""

from __future__ import annotations

import gettext
import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

LUA_LINE = re.compile(r'dialogId\("([^"]+)",[^)]*?\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)', re.DOTALL)
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
CHINESE = re.compile(f"[{HAN}A-Za-z0-9，。？]+[。？]")
ENGLISH = re.compile(r"[A-Za-z' ,.?]+[.?]")
"""sentences whose only marks are the three that are scored"""


def ranked(names: Iterable[str]) -> list[str]:
    """An order without preference that never changes."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def asterisk(text: str) -> dict[str, str]:
    """Lines `name: what is said`; names that occur twice, sounds in brackets and silences are left out."""
    found: dict[str, str] = {}
    twice = set()
    for line in text.lstrip("\ufeff").splitlines():
        name, colon, said = line.partition(":")
        if line.startswith(";") or not colon or not said.strip():
            continue
        if name in found:
            twice.add(name)
        found[name.strip()] = said.strip()
    return {
        name: said
        for name, said in found.items()
        if name not in twice and not name.startswith("silence/") and not re.search(r"[\[\]<>(){}]", said)
    }


def asterisk_file(path: Path) -> dict[str, str]:
    return asterisk(gzip.decompress(path.read_bytes()).decode("utf-8"))


def fillets(text: str) -> dict[str, str]:
    """`dialogId("name", …, "English")`, then `dialogStr("what is said")`."""
    return {name: said.replace('\\"', '"').replace("\\n", " ").strip() for name, said in LUA_LINE.findall(text)}


def usable(said: str) -> bool:
    """Tell whether a text can be compared with what a recogniser writes: two words at least, no figures, no signs."""
    return len(said.split()) >= 2 and not re.search(r"[0-9#*@/\\_%&=+…]|\.\.\.", said)


def chinese_sentence(text: str) -> str | None:
    """The text in the three marks that are scored, or None if it has others or says too little."""
    plain = re.sub(r"\s+", "", text).replace("?", "？").replace(",", "，")
    if not CHINESE.fullmatch(plain) or re.search("[，。？]{2}", plain):
        return None
    return plain if 8 <= len(re.findall(f"[{HAN}]", plain)) <= 120 else None


def english_sentence(text: str) -> str | None:
    """As `chinese_sentence`."""
    plain = re.sub(r"\s+", " ", text).replace("’", "'").strip()
    if not ENGLISH.fullmatch(plain) or re.search(r"[,.?] ?[,.?]", plain):
        return None
    return plain if 5 <= len(plain.split()) <= 80 else None


def gettext_pairs(path: Path) -> list[tuple[str, str]]:
    """(English, translation) of a compiled message file."""
    with path.open("rb") as file:
        messages = gettext.GNUTranslations(file)._catalog
    pairs = [(k, v) for k, v in messages.items() if isinstance(k, str) and k and v]
    return [(k.rpartition("\x04")[2], v) for k, v in pairs]


class Paragraphs(HTMLParser):
    """Text of the paragraphs of a manual made by DocBook."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "div":
            if self._depth:
                self._depth += 1
            elif dict(attrs).get("class") == "para":
                self._depth = 1
                self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._depth:
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.found[-1] += data


def html_sentences(text: str) -> list[str]:
    parser = Paragraphs()
    parser.feed(text)
    return [p.strip() for p in parser.found if p.strip()]


def hsk(text: str) -> list[str]:
    return [row["chinese"] for row in json.loads(text)]
