"""ModelScope's plain HTTP interface: list the files of a model, and where each can be fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from vermilion.checkpoints.transfer import RemoteFile, get_json
from vermilion.errors import HubError

DEFAULT_REVISION = "master"


def endpoint() -> str:
    """Address of the hub: `MODELSCOPE_ENDPOINT`, else `MODELSCOPE_DOMAIN` (with or without scheme), else its own."""
    chosen = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
    return (chosen if "://" in chosen else f"https://{chosen}").rstrip("/")


def credentials() -> dict[str, str]:
    """Headers that show the user's token, if there is one."""
    token = os.environ.get("MODELSCOPE_API_TOKEN") or os.environ.get("MODELSCOPE_TOKEN")
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}


def list_files(model_id: str, revision: str | None = None) -> list[RemoteFile]:
    """List the files of a model.

    Raises:
        HubError: the hub cannot be reached, refuses, or answers in another form.
    """
    chosen = revision or DEFAULT_REVISION
    base = f"{endpoint()}/api/v1/models/{quote(model_id)}/repo"
    answer = get_json(f"{base}/files?{urlencode({'Revision': chosen, 'Recursive': 'true'})}", credentials())
    try:
        rows = answer["Data"]["Files"]
        return [_remote(base, chosen, row) for row in rows if row.get("Type") != "tree"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = answer.get("Message") if isinstance(answer, dict) else None
        raise HubError(f"{endpoint()} lists no files of {model_id}: {said or repr(error)}") from error


def _remote(base: str, revision: str, row: Mapping[str, Any]) -> RemoteFile:
    path = str(row["Path"])
    url = f"{base}?{urlencode({'Revision': revision, 'FilePath': path})}"
    return RemoteFile(path, int(row["Size"]), url, str(row.get("Sha256") or ""))
