"""The HTTP API: the node's status, its metrics, and every action, for programs, for the command line and for curl."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.server import Request as SiteRequest

from lbarray.console.access import Access, Caller
from lbarray.console.actions import Action, Refused
from lbarray.console.dashboard import FILES, PageFile
from lbarray.console.live import LiveFeed
from lbarray.console.metrics import exposition
from lbarray.console.openapi import document
from lbarray.console.resources import JSON, ApiResource, error_of
from lbarray.console.tables import status_tables
from lbarray.console.view import NodeView
from lbarray.errors import ArrayError

__all__ = ["api_site"]

#: Octets of a request's content: the largest is a configuration.
MAX_CONTENT = 1 << 20
TEXT = "text/plain; charset=utf-8"


class Content(ApiResource):
    """Text or JSON that is made when it is asked for."""

    isLeaf = True

    def __init__(self, view: NodeView, access: Access, content_type: str, make: Callable[[], str]) -> None:
        super().__init__(view, access)
        self._content_type = content_type
        self._make = make

    def do_GET(self, request: Request, caller: Caller) -> Any:
        measured = self.view.measure()
        if measured is None:
            return self._content(request)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(_: object) -> None:
            if not gone:
                request.write(self._content(request))
                request.finish()

        measured.addCallback(answer)
        return NOT_DONE_YET

    def _content(self, request: Request) -> bytes:
        return self.send(request, self._make().encode(), self._content_type)


class _Listing(ApiResource):
    """What actions there are; below it, each of them."""

    def __init__(self, view: NodeView, access: Access, changes: bool) -> None:
        super().__init__(view, access)
        self._changes = changes

    def getChild(self, path: bytes, request: Request) -> Resource:
        if not path:
            return self
        return _Performing(self.view, self.access, path.decode("ascii", "replace"), self._changes)

    def do_GET(self, request: Request, caller: Caller) -> bytes:
        return self.send_json(
            request,
            {
                action.name: {
                    "summary": action.summary,
                    "arguments": {
                        argument.name: {"kind": argument.kind, "help": argument.help, "required": argument.required}
                        for argument in action.arguments
                    },
                }
                for action in self.view.actions
                if action.changes == self._changes
            },
        )


class _Performing(ApiResource):
    """One action: POST with its arguments as a JSON object; a question may also be a GET with a query."""

    isLeaf = True
    log = Logger()

    def __init__(self, view: NodeView, access: Access, name: str, changes: bool) -> None:
        super().__init__(view, access)
        self._name = name
        self._changes = changes

    def _action(self) -> Action:
        action = self.view.actions.get(self._name)
        if action.changes and not self._changes:
            raise Refused(f"{self._name} changes something: POST /actions/{self._name}")
        return action

    def do_GET(self, request: Request, caller: Caller) -> Any:
        if self._changes:
            request.setHeader(b"allow", b"POST")
            return self.refuse(request, 405, "method_not_allowed", f"{request.path.decode()} takes POST")
        given: Mapping[bytes, list[bytes]] = request.args or {}
        arguments: dict[str, object] = {
            key.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace") for key, values in given.items()
        }
        return self._perform(request, caller, arguments)

    def do_POST(self, request: Request, caller: Caller) -> Any:
        if not caller.may_change:
            return self.refuse(
                request,
                401,
                "unauthorized",
                "changes need a token (Authorization: Bearer TOKEN, see console.token_file) or the Unix socket",
            )
        kind = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            # A form of another site can send text or form fields to us from a browser, but not this type (CSRF).
            return self.refuse(request, 415, "not_json", "send a JSON object as application/json")
        assert request.content is not None
        try:
            arguments = json.loads(request.content.read() or b"{}")
        except ValueError as error:
            return self.refuse(request, 400, "not_json", f"the content is no JSON: {error}")
        if not isinstance(arguments, dict):
            return self.refuse(request, 400, "not_json", "the content is no JSON object")
        return self._perform(request, caller, arguments)

    def _perform(self, request: Request, caller: Caller, arguments: dict[str, object]) -> Any:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def done(result: object) -> None:
            if not gone:
                request.write(self.send_json(request, result))
                request.finish()

        def failed(failure: Failure) -> None:
            if failure.check(ArrayError):
                status, said = error_of(failure.value)  # type: ignore[arg-type]
            else:
                self.log.failure("the action {name} broke", failure, name=self._name)
                status, said = 500, {"error": {"reason": "broken", "message": "a mistake of ours; the log has it"}}
            if not gone:
                request.write(self.send_json(request, said, status))
                request.finish()

        performed = maybeDeferred(self._begin, arguments, caller.who)
        performed.addCallbacks(done, failed)
        return NOT_DONE_YET

    def _begin(self, arguments: dict[str, object], who: str) -> object:
        return self.view.actions.perform(self._action().name, arguments, who)


class _Live(ApiResource):
    """The feed of server-sent events."""

    isLeaf = True

    def __init__(self, view: NodeView, access: Access, feed: LiveFeed) -> None:
        super().__init__(view, access)
        self._feed = feed

    def do_GET(self, request: Request, caller: Caller) -> Any:
        listening = self._feed.listen(request)
        if listening is None:
            return self.refuse(request, 503, "too_many_listeners", "too many are listening already")
        return listening


def _root(view: NodeView, access: Access, reactor: Any) -> Resource:
    root = ApiResource(view, access)

    def put(path: str, content_type: str, make: Callable[[], str]) -> None:
        root.putChild(path.encode(), Content(view, access, content_type, make))

    put("status", JSON, lambda: json.dumps(view.status(), indent=1, default=str) + "\n")
    put("tables", TEXT, lambda: status_tables(view.status()))
    put("metrics", "text/plain; version=0.0.4; charset=utf-8", lambda: exposition(view))
    put("healthz", TEXT, lambda: "ok\n")
    put("openapi.json", JSON, lambda: json.dumps(document(view.actions, view.version), indent=1) + "\n")
    for path in FILES:
        root.putChild(path.encode(), PageFile(view, access, path))
    root.putChild(b"live", _Live(view, access, LiveFeed(view, reactor)))
    root.putChild(b"actions", _Listing(view, access, True))
    root.putChild(b"queries", _Listing(view, access, False))
    return root


class _Bounded(SiteRequest):
    def gotLength(self, length: int | None) -> None:
        if length is None or length > MAX_CONTENT:
            # Chunked content has no length to judge by; nobody needs it here.
            transport: Any = self.channel.transport
            transport.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            transport.loseConnection()
            length = 0
        super().gotLength(length)


class _QuietSite(Site):
    def log(self, request: Request) -> None:
        """Who reads the status is no event; what changes something is logged by the action."""


def api_site(view: NodeView, access: Access, reactor: Any) -> Site:
    """The site of one node's API."""
    site = _QuietSite(_root(view, access, reactor), requestFactory=_Bounded, reactor=reactor)
    site.noisy = False
    return site
