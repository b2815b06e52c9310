"""Labels of FireRedLID: 106 language codes and 8 Chinese dialect groups (report, Appendix B; SPEC section 8)."""

from __future__ import annotations

from types import MappingProxyType

from vermilion import languages
from vermilion.languages import OTHER
from vermilion.languages import name_of as language_name

__all__ = ["DIALECTS", "LANGUAGES", "NOT_IN_PAPER", "OTHER", "PAPER_LANGUAGES", "language_name"]

LANGUAGES = MappingProxyType({code: (n.english[0], n.chinese) for code, n in languages.FIREREDLID.items()})
"""code → (English name, Chinese name)"""
DIALECTS = MappingProxyType({code: (n.english[0], n.chinese) for code, n in languages.DIALECTS.items()})
"""Chinese dialect group → (English name, Chinese name)"""
NOT_IN_PAPER = frozenset({"nn", "sa", "sco", "sn", "su", "tg", "tk", "tl", "tt", "war"})
"""codes that the model has and the report's table leaves out"""
PAPER_LANGUAGES = frozenset(LANGUAGES) - NOT_IN_PAPER
"""the 96 languages of the report's table"""
