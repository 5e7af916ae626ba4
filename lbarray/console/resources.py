"""What every resource of the API has in common: who may, which methods, and errors of one shape."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from lbarray.console.access import Access, Caller
from lbarray.console.actions import Refused
from lbarray.console.view import NodeView
from lbarray.errors import ArrayError, BadConfig, SystemRefused

__all__ = ["JSON", "ApiResource", "error_of"]

JSON = "application/json"


def error_of(error: ArrayError) -> tuple[int, dict[str, object]]:
    """The HTTP status of an error, and its one shape: ``{"error": {"reason", "message", …}}``."""
    said: dict[str, object] = {"reason": "refused", "message": str(error)}
    status = 409
    if isinstance(error, Refused):
        status, said["reason"] = error.status, error.reason
    elif isinstance(error, BadConfig):
        status, said["reason"] = 422, "bad_config"
        said["problems"] = [attrs.asdict(problem) for problem in error.problems]
    elif isinstance(error, SystemRefused):
        status, said["reason"] = 503, "system_refused"
        said["advice"] = error.advice
    return status, {"error": said}


class ApiResource(Resource):
    """A resource that answers in one shape, also when something is wrong."""

    #: Also those who may not read the status may have it.
    open_to_all = False

    def __init__(self, view: NodeView, access: Access) -> None:
        super().__init__()
        self.view = view
        self.access = access

    def getChild(self, path: bytes, request: Request) -> Resource:
        return Nowhere(self.view, self.access)

    def send(self, request: Request, content: bytes, content_type: str = JSON, status: int = 200) -> bytes:
        """The whole answer."""
        request.setResponseCode(status)
        for name, value in (
            ("content-type", content_type),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-length", str(len(content))),
        ):
            request.setHeader(name.encode(), value.encode())
        return content

    def send_json(self, request: Request, value: object, status: int = 200) -> bytes:
        """A value as JSON."""
        return self.send(request, json.dumps(value, indent=1, default=str).encode() + b"\n", status=status)

    def refuse(self, request: Request, status: int, reason: str, message: str) -> bytes:
        """An error of the caller's."""
        if status == 401:
            request.setHeader(b"www-authenticate", b'Bearer realm="lbarray"')
        return self.send_json(request, {"error": {"reason": reason, "message": message}}, status)

    def render(self, request: Request) -> Any:
        caller = self.access.of(request)
        if not caller.may_read and not self.open_to_all:
            return self.refuse(
                request, 401, "unauthorized", "a token or a client certificate is needed: Authorization: Bearer TOKEN"
            )
        handler = getattr(self, "do_" + request.method.decode("ascii", "replace"), None)
        if request.method == b"HEAD":
            handler = getattr(self, "do_GET", None)
        if handler is None:
            allowed = sorted(name[3:] for name in dir(self) if name.startswith("do_"))
            request.setHeader(b"allow", ", ".join(allowed).encode())
            return self.refuse(request, 405, "method_not_allowed", f"{request.path.decode()} takes {allowed[0]}")
        answer = handler(request, caller)
        if request.method == b"HEAD" and isinstance(answer, bytes):
            request.write(answer)  # the head only
            request.finish()
            return NOT_DONE_YET
        return answer


class Nowhere(ApiResource):
    def _nothing(self, request: Request, caller: Caller) -> bytes:
        path = request.path.decode("ascii", "replace")[:200]
        return self.refuse(request, 404, "not_found", f"nothing at {path}; /openapi.json says what there is")

    do_GET = do_POST = do_PUT = do_DELETE = _nothing
