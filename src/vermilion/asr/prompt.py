"""What the language model of FireRedASR2-LLM is asked, and how training targets are written (SPEC section 12)."""

from __future__ import annotations

import re

from vermilion.errors import OptionsError

SPEECH = "<speech>"
"""stands for the vectors of the speech"""
START, END, PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
INSTRUCTION = "请转写音频为文字"
"""the model was trained with this one"""
CONTEXT = "\n可能出现的词语："
"""opens the optional line with words that may occur"""
MOST_CONTEXT = 500
"""characters"""
_HAN = re.compile("([\u3400-\u4dbf\u4e00-\u9fff])")
_REMOVED = re.compile("[，。？！,.!?《》（）·“”、/]")


def prompt_text(context: str = "", speech: str = SPEECH) -> str:
    """The prompt of one utterance.

    Args:
        context: names and terms that may occur; empty (as the model was trained) = no such line.
        speech: placeholder of the speech.

    Raises:
        OptionsError: the context is too long or holds a control token.
    """
    context = " ".join(context.split())
    if len(context) > MOST_CONTEXT:
        raise OptionsError(f"the context has {len(context)} characters; at most {MOST_CONTEXT} help")
    if any(mark in context for mark in ("<|", "|>", SPEECH)):
        raise OptionsError("the context must not hold control tokens such as <|im_end|>")
    line = CONTEXT + context if context else ""
    return f"{START}user\n{speech}{INSTRUCTION}{line}{END}\n{START}assistant\n"


def target_text(text: str) -> str:
    """A transcript as the model learns to write it: no marks, no blanks between Chinese characters, lower case."""
    plain = " ".join(_REMOVED.sub("", text).split())
    return "".join(part for part in _HAN.split(plain) if part.strip()).lower()
