"""A stream of an HTTP/2 connection, and who hears of it."""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from lbarray.http.events import Fields

__all__ = ["CONNECTION_WINDOW", "STREAM_WINDOW", "Sink", "StreamState"]

#: Octets that all streams of a connection together may send ahead of their back ends, and one of them.
CONNECTION_WINDOW: Final = 1 << 20
STREAM_WINDOW: Final = 65535


class StreamState:
    """A stream as long as it is open or half closed.

    :ivar expected: octets of content that the request announced, ``None`` for any number.
    :ivar client_ended: the client's side is closed.
    """

    stream_id: int
    client_ended = False
    expected: int | None = None
    received_octets = 0
    receive_window = STREAM_WINDOW
    ungranted = 0
    send_window = 0


S = TypeVar("S", bound=StreamState)


class Sink(Protocol[S]):
    """Hears what a client does. May raise nothing but :class:`~lbarray.http.h2_frames.Http2Error`."""

    def new_stream(self, stream_id: int) -> S:
        """The stream of a request that is about to be told."""

    def request(self, stream: S, fields: Fields, ended: bool) -> None:
        """Its header block."""

    def request_data(self, stream: S, data: bytes, octets: int) -> None:
        """Content. So many ``octets`` of the window were used for it, to be given back by ``grant``."""

    def request_trailers(self, stream: S, fields: Fields) -> None:
        """The block behind the content; :meth:`request_end` follows."""

    def request_end(self, stream: S) -> None:
        """The client's side is closed; not told where ``request`` said it."""

    def stream_reset(self, stream: S, code: int, by_client: bool) -> None:
        """The stream is gone: the client does not want it any more, or made a mistake with it."""

    def window_opened(self, stream: S | None) -> None:
        """More may be sent over this stream; over all of them for ``None``."""

    def going_away(self) -> None:
        """The client will open no more streams."""
