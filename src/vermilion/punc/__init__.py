"""Punctuation: marks and English casing for plain text and for words with times (SPEC section 11)."""

from vermilion.punc.options import PunctuationOptions
from vermilion.punc.restorer import PunctuationRestorer

__all__ = ["PunctuationOptions", "PunctuationRestorer"]
