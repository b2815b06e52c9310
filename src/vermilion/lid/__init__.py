"""Spoken language identification: FireRedLID and its labels."""

from __future__ import annotations

from vermilion.lid.identifier import LanguageIdentifier
from vermilion.lid.labels import DIALECTS, LANGUAGES, PAPER_LANGUAGES, language_name
from vermilion.transcript import LanguageResult

__all__ = ["DIALECTS", "LANGUAGES", "PAPER_LANGUAGES", "LanguageIdentifier", "LanguageResult", "language_name"]
