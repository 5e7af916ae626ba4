"""What the server's side of an HTTP/2 connection says: header blocks, content within the windows, window given back."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic

from lbarray.http.events import Fields
from lbarray.http.h2_compression import encoder
from lbarray.http.h2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME,
    ErrorCode,
    goaway_frame,
    head,
    rst_stream_frame,
    window_update_frame,
)
from lbarray.http.h2_streams import CONNECTION_WINDOW, STREAM_WINDOW, S

__all__ = ["Sending"]

#: Window is given back in pieces of this many octets at least.
_GRANT_STREAM: Final = STREAM_WINDOW // 4
_GRANT_CONNECTION: Final = CONNECTION_WINDOW // 4

#: Streams of whose resetting we know: what the client had sent before it heard of it is no mistake.
_RESETS: Final = 1024


class Sending(Generic[S]):
    """The half of a connection that writes frames; :meth:`take` gives them.

    :ivar streams: those in hand, by number.
    :ivar last_id: the highest number of a stream that was begun.
    :ivar going: new streams are refused.
    :ivar closed: nothing more is read; the sink sets it.
    """

    def __init__(self) -> None:
        self.streams: dict[int, S] = {}
        self.last_id = 0
        self.going = False
        self.closed = False
        self._encoder = encoder()
        self._was_reset: OrderedDict[int, None] = OrderedDict()
        self._receive_window = CONNECTION_WINDOW
        self._ungranted = 0
        self._send_window = STREAM_WINDOW
        self._initial_window = STREAM_WINDOW
        self._out: list[bytes] = []

    def take(self) -> bytes:
        """Octets for the client."""
        out, self._out = self._out, []
        return out[0] if len(out) == 1 else b"".join(out)

    def window(self, stream: S) -> int:
        """Octets of content that may go in one frame now."""
        return min(stream.send_window, self._send_window, MAX_FRAME)

    def send_block(self, stream: S, fields: Fields, *, end: bool) -> None:
        """A header block."""
        block = self._encoder.encode(fields)
        flags = END_STREAM if end else 0
        size = len(block)
        if size <= MAX_FRAME:
            self._out.append(head(size, HEADERS, flags | END_HEADERS, stream.stream_id) + block)
            return
        kind = HEADERS
        for at in range(0, size, MAX_FRAME):
            piece = block[at : at + MAX_FRAME]
            if at + MAX_FRAME >= size:
                flags |= END_HEADERS
            self._out.append(head(len(piece), kind, flags, stream.stream_id) + piece)
            kind, flags = CONTINUATION, 0

    def send_data(self, stream: S, data: bytes, *, end: bool) -> None:
        """Content, within :meth:`window`."""
        size = len(data)
        stream.send_window -= size
        self._send_window -= size
        self._out.append(head(size, DATA, END_STREAM if end else 0, stream.stream_id))
        if size:
            self._out.append(data)

    def grant(self, stream: S, octets: int) -> None:
        """So much of a stream's content is out of the way: let the client send as much again."""
        self._grant_connection(octets)
        if stream.client_ended or self.closed:
            return
        stream.ungranted += octets
        if stream.ungranted >= _GRANT_STREAM:
            stream.receive_window += stream.ungranted
            self._out.append(window_update_frame(stream.stream_id, stream.ungranted))
            stream.ungranted = 0

    def _grant_connection(self, octets: int) -> None:
        self._ungranted += octets
        if self._ungranted >= _GRANT_CONNECTION:
            self._receive_window += self._ungranted
            self._out.append(window_update_frame(0, self._ungranted))
            self._ungranted = 0

    def finish(self, stream: S) -> None:
        """Both sides of it are closed."""
        self.streams.pop(stream.stream_id, None)

    def reset(self, stream: S, code: ErrorCode) -> None:
        """End one stream; nothing is told of it."""
        self.streams.pop(stream.stream_id, None)
        self._write_reset(stream.stream_id, code)

    def _write_reset(self, stream_id: int, code: ErrorCode) -> None:
        self._out.append(rst_stream_frame(stream_id, code))
        self._was_reset[stream_id] = None
        if len(self._was_reset) > _RESETS:
            self._was_reset.popitem(last=False)

    def goaway(self, code: ErrorCode) -> None:
        """No stream beyond the last one is served; with an error, none at all any more."""
        self.going = True
        if code:
            self._out.clear()
        self._out.append(goaway_frame(self.last_id, code))
