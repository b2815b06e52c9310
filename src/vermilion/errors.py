"""Typed errors: every message says what happened and what to do about it."""

from __future__ import annotations


class VermilionError(Exception):
    """Base class of everything that Vermilion raises on purpose."""


class AudioError(VermilionError):
    """A recording cannot be used: missing, unreadable, corrupt, not audio, or with impossible samples."""


class AudioLimitError(AudioError):
    """A recording is larger or longer than a limit that the caller set."""


class CheckpointError(VermilionError):
    """A model folder or file is missing, incomplete, of the wrong kind, or unsafe to read."""


class HubError(VermilionError):
    """A model hub could not be reached, refused, or sent something that fails its own hash."""


class MissingDependencyError(VermilionError):
    """An optional package is needed; the message names the extra that installs it."""


class Cancelled(BaseException):
    """Nobody waits for the work any more; no `Exception`, so that no stage takes it for a fault of its own."""


def install(extra: str) -> str:
    """How an extra is installed, for messages: from the source, since no registry has the package."""
    return f'install the extra vermilion[{extra}] with pip install -e ".[{extra}]" in the folder of the source'


def missing(what: str, extra: str, error: object = "") -> MissingDependencyError:
    """The error for a package that is not there.

    Args:
        what: what needs it, or what is not there.
        extra: that brings it.
        error: what the import said.
    """
    return MissingDependencyError(f"{what}: {install(extra)}" + (f" ({error})" if str(error) else ""))


class OptionsError(VermilionError, ValueError):
    """An option has a value outside its domain, or two options contradict each other."""


class UnsupportedLanguageError(VermilionError):
    """A language code is not one that the model in use knows."""


class FormatError(VermilionError):
    """An output format is unknown, or a transcript cannot be written in it."""


class ManifestError(VermilionError):
    """A list of recordings cannot be read, or one of its lines is no entry."""


class TrainingError(VermilionError):
    """Training cannot start or go on: data that do not fit the recipe, a checkpoint of another run, loss that is no
    number."""


class ModelError(VermilionError):
    """A network failed while running (out of memory, a numerical fault): the item concerned is reported in place."""
