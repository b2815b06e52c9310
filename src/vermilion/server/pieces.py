"""A text told in pieces that clients put behind each other, and that can never be taken back."""

from __future__ import annotations


def continuation(said: str, text: str) -> str:
    """What is still to be told of a text after `said`.

    The final text may write earlier words with other marks and capitals: they are not told again. Where it has other
    words, as many characters are taken for told as were.
    """
    if text.startswith(said):
        return text[len(said) :]
    wanted = [c for c in said.casefold() if c.isalnum()]
    at = 0
    for i, character in enumerate(text):
        if at == len(wanted):
            return text[i:]
        if character.isalnum():
            at += len(character.casefold())
    return ""
