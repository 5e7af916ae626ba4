"""Looking at a back end by a request."""

from __future__ import annotations

from typing import Any

import re2
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.backends.health import Seen
from lbarray.backends.matching import pattern
from lbarray.backends.probes.tcp import ConnectionProbe, Probing
from lbarray.backends.probes.tls import over_tls
from lbarray.config.pools import Check
from lbarray.http.events import Fields, ResponseHead
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.responses import ResponseParser, ResponseSink
from lbarray.interfaces import IHealthProbe
from lbarray.values import BackendAddress

__all__ = ["HttpProbe", "wrong_fields"]

#: Octets of content that are looked at.
MOST_BODY = 65536


def wrong_fields(head: ResponseHead, wanted: dict[str, str]) -> str:
    """What is wrong with the fields of a response, empty for nothing. ``~`` begins a regular expression."""
    for name, value in wanted.items():
        found = [each.decode("latin-1") for each in head.get_all(name.lower().encode())]
        if not (any(re2.search(value[1:], each) for each in found) if value.startswith("~") else value in found):
            return f"{name}: {', '.join(found)[:80] or 'missing'}, wanted {value}"
    return ""


class _Asking(Probing, ResponseSink):
    def __init__(self, check: Check, host: str, preamble: bytes) -> None:
        super().__init__()
        self._check = check
        self._preamble = preamble
        self._host = host
        self._parser = ResponseParser(self, Limits())
        self._pattern = pattern(check.expect_body) if check.expect_body is not None else None
        self._body = b""
        self._status = 0

    def connectionMade(self) -> None:
        check = self._check
        fields = {"Host": self._host, "User-Agent": "lbarray-probe", **check.send, "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._parser.expect(check.method.encode())
        self.transport.write(self._preamble + f"{check.method} {check.path} HTTP/1.1\r\n{lines}\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        if self.done is None:
            return
        try:
            self._parser.feed(data)
        except BadMessage as error:
            self.tell(Seen(False, f"no HTTP response: {error}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done is not None and self._status:
            self._parser.eof()
        super().connectionLost(reason)

    # ResponseSink

    def response_head(self, head: ResponseHead) -> None:
        if head.status < 200 or self.done is None:
            return
        check = self._check
        self._status = head.status
        if not check.expect[0] <= head.status <= check.expect[1]:
            self.tell(Seen(False, f"status {head.status}, wanted {check.expect[0]} to {check.expect[1]}"))
        elif wrong := wrong_fields(head, check.expect_fields):
            self.tell(Seen(False, wrong))
        elif self._pattern is None:
            self.tell(Seen(True, f"status {head.status}"))

    def response_body(self, data: bytes) -> None:
        if self.done is not None and len(self._body) < MOST_BODY:
            self._body += data[: MOST_BODY - len(self._body)]
            if len(self._body) >= MOST_BODY:
                self._judge()

    def response_trailers(self, fields: Fields) -> None:
        """Not looked at."""

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        """Never asked for."""

    def response_end(self, reusable: bool) -> None:
        self._judge()

    def _judge(self) -> None:
        if self._pattern is not None and self.done is not None:
            good = self._pattern.search(self._body) is not None
            wanted = "" if good else f", but its content has nothing of {self._check.expect_body}"
            self.tell(Seen(good, f"status {self._status}{wanted}"))


@implementer(IHealthProbe)
class HttpProbe(ConnectionProbe):
    """A back end that answers as is wanted is well: by status, fields and content."""

    def probing(self, backend: BackendAddress) -> Probing:
        name = f"[{backend.host}]" if ":" in backend.host else backend.host
        host = self.check.host or f"{name}:{backend.port}"
        return _Asking(self.check, host, b"" if self.check.tls else self.preamble)

    def wrapped(self, factory: ClientFactory, backend: BackendAddress) -> Any:
        if not self.check.tls:
            return factory
        return over_tls(factory, (self.check.host or backend.host).partition(":")[0], self.preamble)
