"""TorchServe's tokens: it writes them into a file at its start, and they expire."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from deploy.torchserve_process import call
from deploy.triton_install import StackError

#: A token is renewed when it has less than this to live.
_MARGIN = timedelta(minutes=1)


class KeyFile:
    """``key_file.json``, which the owner alone may read.

    Attributes:
        path: of the file; TorchServe writes it into its working folder.
        management_port: where tokens are renewed, by the third key of the file, which never ends.
    """

    def __init__(self, path: Path, management_port: int) -> None:
        self.path = path
        self.management_port = management_port

    def token(self, kind: str) -> str:
        """The token of a kind (inference, management), renewed where it is about to expire.

        Raises:
            StackError: there is no file yet, or TorchServe does not renew.
            OSError, http.client.HTTPException: it does not answer.
        """
        entry = self._read()[kind]
        # ISO 8601 in UTC, with more digits of a second than Python reads.
        until = datetime.fromisoformat(entry["expiration time"][:19]).replace(tzinfo=timezone.utc)
        if until - datetime.now(timezone.utc) < _MARGIN:
            return self.renew(kind)
        return entry["key"]

    def renew(self, kind: str) -> str:
        """A fresh token; the old one ends at once. Raises as ``token`` does."""
        key = self._read()["API"]["key"]
        status, body = call(self.management_port, "GET", f"/token?type={kind}", key)
        if status != 200:
            raise StackError(f"TorchServe did not renew its {kind} token: {status} {body!r}")
        return self._read()[kind]["key"]

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            keys: dict[str, dict[str, str]] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StackError(f"{self.path}: no tokens to read: {error}") from error
        return keys
