"""API keys: random, hashed at rest, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vermilion.errors import OptionsError

PREFIX = "vk-"


@dataclass(frozen=True)
class Key:
    """What is kept of a key."""

    name: str
    hash: str
    """SHA-256 of the key in hexadecimal: it has 256 random bits, so nothing slower is needed"""
    created: float
    """seconds since 1970"""
    hint: str
    """its last four characters"""


class KeyFile:
    """A file of keys; changes to it take effect at once."""

    def __init__(self, path: Path) -> None:
        """Take the file."""
        self.path = path
        self._read: list[Key] = []
        self._stamp: tuple[int, int] | None = None

    def keys(self) -> list[Key]:
        """All keys.

        Raises:
            OptionsError: the file is damaged.
        """
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return []
        stamp = (state.st_mtime_ns, state.st_size)
        if stamp != self._stamp:
            self._read, self._stamp = self._load(), stamp
        return self._read

    def _load(self) -> list[Key]:
        try:
            return [Key(**entry) for entry in json.loads(self.path.read_text("utf-8"))["keys"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionsError(f"{self.path} is not a file of keys: {error}; make one with `vermilion keys`") from error

    def add(self, name: str) -> str:
        """Make a key; this is the only time that anybody sees it.

        Raises:
            OptionsError: the name is taken, or no name.
        """
        if not re.fullmatch(r"[\w.@-]{1,64}", name):
            raise OptionsError(f"a key's name has 1 to 64 letters, digits or .@_-, not {name!r}")
        keys = self.keys()
        if any(key.name == name for key in keys):
            raise OptionsError(f"there is a key called {name} already; remove it first, or choose another name")
        key = PREFIX + secrets.token_urlsafe(32)
        self._write([*keys, Key(name, _hash(key), round(time.time(), 3), key[-4:])])
        return key

    def remove(self, name: str) -> None:
        """Make a key worthless.

        Raises:
            OptionsError: there is none of this name.
        """
        keys = self.keys()
        rest = [key for key in keys if key.name != name]
        if len(rest) == len(keys):
            known = ", ".join(key.name for key in keys) or "none"
            raise OptionsError(f"there is no key called {name}; known are: {known}")
        self._write(rest)

    def name_of(self, given: str) -> str | None:
        """Whose key it is; looks at all of them, so that the time tells nothing."""
        found = None
        digest = _hash(given)
        for key in self.keys():
            if hmac.compare_digest(key.hash, digest):
                found = key.name
        return found

    def _write(self, keys: list[Key]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        part.touch(mode=0o600, exist_ok=False)
        part.write_text(json.dumps({"keys": [asdict(key) for key in keys]}, indent=2), "utf-8")
        part.replace(self.path)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
