"""A client of HTTP/2 for tests: whole requests by the library h2, or frames of any kind, however wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from lbarray.http.h2_frames import PREFACE

reactor: Any = global_reactor
REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")]


class Reply:
    """What has come on one stream."""

    def __init__(self) -> None:
        self.heads: list[dict[bytes, bytes]] = []
        self.content = b""
        self.trailers: dict[bytes, bytes] = {}
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        """Of the last head, 0 before it."""
        return int(self.heads[-1][b":status"]) if self.heads else 0

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.ended or self.reset is not None


class H2Client(Protocol):
    """Over a plain connection, with prior knowledge."""

    transport: Any

    def __init__(self) -> None:
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=True,
            )
        )
        self.replies: dict[int, Reply] = {}
        self.goaway: int | None = None
        self.closed = False
        self.got = b""
        self.reads = True
        self.encoder = Encoder()
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def connectionMade(self) -> None:
        self.h2.initiate_connection()
        self.send()

    def send(self) -> None:
        """What h2 has to say."""
        self.transport.write(self.h2.data_to_send())

    def ask(self, *more: tuple[str, str], content: bytes | None = None, ends: bool = True, **pseudo: str) -> Reply:
        """A request; ``pseudo`` replaces pseudo-header fields."""
        stream_id = self.h2.get_next_available_stream_id()
        fields = [(name, pseudo.get(name[1:], value)) for name, value in REQUEST]
        self.h2.send_headers(stream_id, [*fields, *more], end_stream=ends and content is None)
        if content:
            self.h2.send_data(stream_id, content, end_stream=ends)
        self.send()
        reply = self.replies[stream_id] = Reply()
        return reply

    def frame(self, frame: Frame) -> None:
        """A frame past all checks."""
        self.transport.write(frame.serialize())

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            events = []
        for event in events:
            self._heard(event)
        self.send()
        self._look()

    def _heard(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
            return
        reply = self.replies.setdefault(getattr(event, "stream_id", None) or 0, Reply())
        if isinstance(event, ResponseReceived | InformationalResponseReceived):
            reply.heads.append(dict(event.headers or ()))
        elif isinstance(event, DataReceived):
            reply.content += event.data or b""
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, TrailersReceived):
            reply.trailers = dict(event.headers or ())
        elif isinstance(event, StreamEnded):
            reply.ended = True
        elif isinstance(event, StreamReset):
            reply.reset = int(event.error_code or 0)

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True
        self._look()

    def _look(self) -> None:
        for each in list(self._waiting):
            if each[0]():
                self._waiting.remove(each)
                each[1].callback(None)

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when the condition holds."""
        done: Deferred[None] = Deferred()
        self._waiting.append((condition, done))
        self._look()
        return done.addTimeout(5, reactor)


class RawClient(H2Client):
    """Says nothing by itself but the preface and empty settings; of what comes it reads ends and resets."""

    def connectionMade(self) -> None:
        self.transport.write(PREFACE + b"\0\0\0\4\0\0\0\0\0")

    def send(self) -> None:
        """Nothing: acknowledgements would only get in the way."""

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        while len(self.got) >= 9:
            head, length = Frame.parse_frame_header(memoryview(self.got[:9]))
            if len(self.got) < 9 + length:
                break
            body, self.got = self.got[9 : 9 + length], self.got[9 + length :]
            reply = self.replies.setdefault(head.stream_id, Reply())
            if isinstance(head, RstStreamFrame):
                reply.reset = int.from_bytes(body, "big")
            elif isinstance(head, GoAwayFrame):
                self.goaway = int.from_bytes(body[4:8], "big")
            elif "END_STREAM" in head.flags:
                reply.ended = True
        self._look()
