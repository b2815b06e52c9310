"""A text told in pieces that clients put behind each other, and that can never be taken back."""

from __future__ import annotations

import unicodedata

CLOSING = ("Po", "Pe", "Pf")
"""kinds of marks that belong to the word before them"""


def continuation(said: str, text: str) -> str:
    """What is still to be told of a text after `said`.

    The final text may write earlier words with other marks and capitals: they are not told again. Where it has other
    words, as many characters are taken for told as were. Marks of the final text at the joint are left out where the
    client has others there already.
    """
    if text.startswith(said):
        return text[len(said) :]
    wanted = [c for c in said.casefold() if c.isalnum()]
    at = 0
    for i, character in enumerate(text):
        if at == len(wanted):
            return _joined(said, text[i:])
        if character.isalnum():
            at += len(character.casefold())
    return ""


def _joined(said: str, rest: str) -> str:
    if said[-1:].isalnum() or not said:
        return rest
    marks = next((i for i, c in enumerate(rest) if unicodedata.category(c) not in CLOSING), len(rest))
    return rest[marks:].lstrip() if said[-1:].isspace() else rest[marks:]
