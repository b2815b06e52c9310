"""Flags on recognitions, sentences and transcripts: machine-readable remarks, and what each means to a reader."""

from __future__ import annotations

UNSUPPORTED_LANGUAGE = "unsupported-language"
ROUTED = "routed"
REPETITION = "repetition"
RATE_LIMITED = "rate-limited"
LOW_COVERAGE = "low-coverage"
RETRIED = "retried"
NO_SPEECH = "no-speech"
NO_TEXT = "no-text"
MUSIC = "music"
SINGING = "singing"

MEANINGS = {
    UNSUPPORTED_LANGUAGE: "the recogniser does not cover this language; its text is unreliable",
    ROUTED: "recognised by the fallback recogniser, which covers this language",
    REPETITION: "a repetition loop was cut out of the text",
    RATE_LIMITED: "the text grew faster than anybody speaks and was stopped",
    LOW_COVERAGE: "the text covers only a part of the speech",
    RETRIED: "the first result was implausible; this is a second one",
    NO_SPEECH: "judged to be no speech; its text was dropped",
    NO_TEXT: "speech was found, but nothing was recognised in it",
    MUSIC: "music plays here",
    SINGING: "somebody sings here",
}
"""flag → what it means, in one plain sentence"""
