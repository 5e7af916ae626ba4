"""Asks a running node, over its Unix socket or over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from lbarray.errors import ArrayError, SystemRefused

__all__ = ["NodeAnswered", "NodeClient"]

TIMEOUT_S = 30.0
#: Where nodes keep their sockets unless their configuration says otherwise.
STATE_DIR = Path("/var/lib/lbarray")
RUNNING = "does a node run here? systemctl status lbarray; or say which: --config FILE, --socket PATH or --url URL"


class NodeAnswered(ArrayError):
    """The node's answer is an error.

    :ivar status: the HTTP status; :ivar reason: its stable word.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class NodeClient:
    """The API of one node. Every method raises :class:`SystemRefused` when the node cannot be reached and
    :class:`NodeAnswered` when it refuses."""

    def __init__(
        self,
        *,
        path: Path | None = None,
        url: str = "",
        token: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._path = path
        self._context = context
        self._url = urlsplit(url)
        self._token = token

    @classmethod
    def find(
        cls,
        *,
        socket_path: Path | None = None,
        config: Path | None = None,
        node: str | None = None,
        url: str | None = None,
        token_file: Path | None = None,
        ca: Path | None = None,
        certificate: Path | None = None,
    ) -> Self:
        """The node that is meant: by URL, by socket, by configuration, or the only one on this machine.

        :raises SystemRefused: there is none, or there are several and none was named.
        """
        if url:
            token = ""
            if token_file is not None:
                try:
                    token = token_file.read_text().partition("\n")[0].strip()
                except OSError as error:
                    raise SystemRefused(f"read the token file {token_file}", errno=error.errno or 0) from None
            whole = url if "//" in url else f"http://{url}"
            return cls(url=whole, token=token, context=_context(ca, certificate) if whole[:6] == "https:" else None)
        if socket_path is None and (variable := os.environ.get("LBARRAY_SOCKET")):
            socket_path = Path(variable)
        if socket_path is not None:
            return cls(path=socket_path)
        folder = STATE_DIR
        if config is not None:
            from lbarray.config.load import load

            folder = load(config).array.state_dir
        if node is not None:
            return cls(path=folder / f"{node}.sock")
        return cls(path=_only_socket(folder))

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._path is not None:
            return _UnixConnection(self._path, timeout_s)
        host = self._url.hostname or "127.0.0.1"
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, self._url.port or 443, timeout=timeout_s, context=self._context)
        return http.client.HTTPConnection(host, self._url.port or 9080, timeout=timeout_s)

    @property
    def where(self) -> str:
        """Whom we ask, for messages."""
        return str(self._path) if self._path is not None else self._url.geturl()

    def _ask(self, method: str, target: str, content: object = None, timeout_s: float = TIMEOUT_S) -> bytes:
        connection = self._connection(timeout_s)
        fields = {"Content-Type": "application/json"} if content is not None else {}
        if self._token:
            fields["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, target, None if content is None else json.dumps(content).encode(), fields)
            response = connection.getresponse()
            octets = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise SystemRefused(
                f"ask the node at {self.where}",
                errno=getattr(error, "errno", 0) or 0,
                detail=str(error) or type(error).__name__,
                advice=RUNNING,
            ) from None
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, octets)
        return octets

    def get(self, path: str, **query: object) -> Any:
        """The JSON at ``path``."""
        given = {key: value for key, value in query.items() if value is not None}
        octets = self._ask("GET", path + ("?" + urlencode(given) if given else ""))
        return json.loads(octets)

    def text(self, path: str) -> str:
        """The text at ``path``."""
        return self._ask("GET", path).decode("utf-8", "replace")

    def status(self) -> dict[str, Any]:
        """Everything that the node knows."""
        status: dict[str, Any] = self.get("/status")
        return status

    def perform(self, action: str, timeout_s: float = TIMEOUT_S, **arguments: object) -> dict[str, Any]:
        """Change something; underscores in the arguments' names stand for hyphens."""
        content = _named(arguments)
        result: dict[str, Any] = json.loads(self._ask("POST", f"/actions/{action}", content, timeout_s))
        return result

    def ask(self, query: str, **arguments: object) -> dict[str, Any]:
        """A question that changes nothing."""
        result: dict[str, Any] = self.get(f"/queries/{query}", **_named(arguments))
        return result


def _context(ca: Path | None, certificate: Path | None) -> ssl.SSLContext:
    """:raises SystemRefused: a file will not do."""
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        if certificate is not None:
            context.load_cert_chain(str(certificate))
    except (OSError, ssl.SSLError) as error:
        raise SystemRefused(f"use {certificate or ca}", detail=str(error), advice="a file in PEM") from None
    return context


def _named(arguments: Mapping[str, object]) -> dict[str, object]:
    return {key.replace("_", "-"): value for key, value in arguments.items() if value is not None}


def _refusal(status: int, octets: bytes) -> NodeAnswered:
    try:
        error = json.loads(octets)["error"]
        return NodeAnswered(status, str(error["reason"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        said = octets[:200].decode("utf-8", "replace").strip()
        return NodeAnswered(status, "unknown", f"the node answered with status {status}: {said}")


def _listened_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # of somebody else: it may well live
    return True


def _only_socket(folder: Path) -> Path:
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix == ".sock")
    except OSError as error:
        raise SystemRefused(f"look for a node's socket in {folder}", errno=error.errno or 0, advice=RUNNING) from None
    if not found:
        raise SystemRefused(f"find a node's socket in {folder}", detail="none is there", advice=RUNNING)
    if len(found) > 1:
        # A node that was killed leaves its socket behind.
        found = [path for path in found if _listened_to(path)] or found
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise SystemRefused(
            "choose a node", detail=f"several have a socket in {folder}: {names}", advice="name one: --node NAME"
        )
    return found[0]
