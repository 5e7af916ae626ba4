"""What an exchange knows while it goes on, and what its client's side gives to it."""

from __future__ import annotations

from typing import Any

from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.tracing import Recorded
from lbarray.values import BackendAddress, ClientAddress
from lbarray.worker.backend import BackendConnection
from lbarray.worker.clients import Client
from lbarray.worker.contents import FilteredContent
from lbarray.worker.mirror import Mirror

__all__ = ["ExchangeState"]


class ExchangeState:
    """One request in hand. A client's side is a subclass of :class:`~lbarray.worker.exchange.Exchange`.

    :ivar deadline: when the sweep may end what is waited for, in the reactor's seconds.
    :ivar lines: the lines that tell the back end of the client.
    :ivar upload: :class:`~twisted.internet.interfaces.IPushProducer`: the client, as the sender of content.
    :ivar request: the one in hand, ``None`` between two.
    """

    factory: Any
    client_address: ClientAddress
    upload: Any
    lines = b""
    deadline = 0.0

    #: Whose requests are counted against a limit; ``None`` where none is.
    asking: Client | None = None
    request: RequestHead | None = None
    request_complete = False
    response_begun = False
    status = 0
    #: Of the response's content, as written to the client: whoever writes it adds to this.
    sent_octets = 0

    _began_s = 0.0
    _backend_name = ""
    _route = ""
    _trace = b""
    _recorded: Recorded | None = None
    _asked: BackendAddress | None = None
    _asked_s = 0.0
    _attempts = 0
    _assignment: Any = None
    _backend: BackendConnection | None = None
    _head_octets = b""
    _chunked_request = False
    _body_began = False
    _stale_once = False
    _max_body: int | None = None
    _body_octets = 0
    _response_timeout_s = 0.0
    _held: list[bytes] | None = None
    _window_octets = 0
    _mirrors: list[Mirror] | None = None
    _content: FilteredContent | None = None
    _client_full = False

    # What the client's side is for

    def answer(self, status: int, fields: tuple[tuple[bytes, bytes], ...] = (), content: bytes | None = None) -> None:
        """A response of our own, whole."""
        raise NotImplementedError

    def answered_and_complete(self) -> None:
        """The rest of a request has come that was answered before."""
        raise NotImplementedError

    def respond(self, head: ResponseHead, more: tuple[tuple[bytes, bytes], ...], has_length: bool) -> None:
        """The head of the response. ``more``: fields to add; ``has_length``: it has Content-Length."""
        raise NotImplementedError

    def respond_whole(
        self, head: ResponseHead, more: tuple[tuple[bytes, bytes], ...], content: bytes, now: float
    ) -> None:
        """All of a response, which has Content-Length, to a request that is complete, at ``now``."""
        self.respond(head, more, True)
        if content:
            self.content(content)
        self.content_end()

    def respond_interim(self, head: ResponseHead) -> None:
        """A response below 200."""
        raise NotImplementedError

    def content(self, data: bytes) -> None:
        """Some content of the response, never empty."""
        raise NotImplementedError

    def content_trailers(self, fields: Fields) -> None:
        """Fields behind the content; :meth:`content_end` follows."""
        raise NotImplementedError

    def content_end(self) -> None:
        """The response is complete."""
        raise NotImplementedError

    def respond_cut(self) -> None:
        """The response breaks off, and the client must see that."""
        raise NotImplementedError

    def respond_switch(self, head: ResponseHead, backend: BackendConnection, assignment: Any, data: bytes) -> None:
        """From here on the connections belong to another protocol."""
        raise NotImplementedError

    def flush(self) -> None:
        """All that one reading of the back end brought has been told."""
        raise NotImplementedError
