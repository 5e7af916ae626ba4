"""The server's side of one HTTP/2 connection, without I/O: octets in, calls to a sink; calls in, octets out (RFC 9113).

The library ``h2`` is an exact picture of the protocol, at half the cost of a whole request for each; a proxy needs less
of it. A stream here is a :class:`~lbarray.http.h2_streams.StreamState`, which the sink's own streams extend, so that
there is one object for each request; frames that carry requests go by a few comparisons; everything about compression
is in :mod:`lbarray.http.h2_compression`. The tests let ``h2`` be the client.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lbarray.http.events import Fields
from lbarray.http.h2_compression import TABLE, decoder
from lbarray.http.h2_floods import Flood, FloodMeter
from lbarray.http.h2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    MAX_FRAME,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    Http2Error,
    Setting,
    head,
    ping_ack,
    settings_frame,
    window_update_frame,
)
from lbarray.http.h2_sending import Sending
from lbarray.http.h2_streams import CONNECTION_WINDOW, STREAM_WINDOW, S, Sink, StreamState
from lbarray.http.limits import Limits

__all__ = ["ServerConnection"]

#: Gaps in the numbers of streams of which we know.
_GAPS: Final = 16


class ServerConnection(Sending[S]):
    """One client's connection.

    :param sink: hears of it.
    :ivar since: when the frame or the header block began whose rest has not come, in seconds; ``None`` for none.
    """

    def __init__(self, sink: Sink[S], limits: Limits) -> None:
        super().__init__()
        self._sink = sink
        self._limits = limits
        self._most_block = 2 * limits.max_head
        # Somewhat more than we say: what is a little too large is answered with 431 instead of a dead connection.
        self._decoder = decoder(2 * limits.max_head)
        self._meter = FloodMeter(control_rate=limits.h2_control_per_s, reset_rate=limits.h2_resets_per_s)
        self.since: float | None = None
        self._now = 0.0
        self._rest = b""
        self._preface = PREFACE
        self._begun = False
        self._block: list[bytes] | None = None
        self._block_octets = 0
        self._block_stream = 0
        self._block_flags = 0
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_GAPS)

    def start(self) -> None:
        """Say our settings."""
        limits = self._limits
        self._out.append(
            settings_frame(
                {
                    Setting.MAX_CONCURRENT_STREAMS: limits.h2_streams,
                    Setting.MAX_HEADER_LIST_SIZE: limits.max_head,
                    Setting.ENABLE_PUSH: 0,
                }
            )
        )
        self._out.append(window_update_frame(0, CONNECTION_WINDOW - STREAM_WINDOW))

    # From the client

    def receive(self, data: bytes, now: float) -> None:
        """Octets as they came, the preface first.

        :raises Http2Error: the connection is of no further use.
        """
        self._now = now
        self._meter.at(now)
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        if self._preface:
            at = self._read_preface(data)
        end = len(data)
        begun = at
        unpack = HEAD.unpack_from
        while end - at >= 9 and not self.closed:
            high, low, kind, flags, stream_id = unpack(data, at)
            length = high << 8 | low
            if length > MAX_FRAME:
                raise Http2Error("frame_size", f"a frame of {length} octets", ErrorCode.FRAME_SIZE_ERROR)
            start = at + 9
            if end - start < length:
                break
            at = start + length
            self._frame(kind, flags, stream_id & 0x7FFFFFFF, data[start:at])
        if at < end:
            self._rest = data[at:]
        self._note_time(progress=at > begun, now=now)

    def _read_preface(self, data: bytes) -> int:
        size = min(len(data), len(self._preface))
        if data[:size] != self._preface[:size]:
            raise Http2Error("preface", "no preface of HTTP/2")  # RFC 9113 §3.4
        self._preface = self._preface[size:]
        return size

    def _note_time(self, *, progress: bool, now: float) -> None:
        if self._block is not None:
            return  # since its HEADERS
        rest = self._rest
        # A piece of DATA has the time that its request has.
        if not rest or (len(rest) > 3 and rest[3] == DATA):
            self.since = None
        elif progress or self.since is None:
            self.since = now

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._begun and (kind != SETTINGS or flags & ACK):
            raise Http2Error("preface", "a connection that does not begin with SETTINGS")  # RFC 9113 §3.4
        if self._block is not None:
            if kind != CONTINUATION or stream_id != self._block_stream:
                raise Http2Error("block", "another frame within a header block")  # RFC 9113 §6.10
            self._continuation(flags, payload)
        elif kind == HEADERS:
            self._headers(flags, stream_id, payload)
        elif kind == DATA:
            self._data(flags, stream_id, payload)
        elif kind == WINDOW_UPDATE:
            self._window_update(stream_id, payload)
        else:
            self._control(kind, flags, stream_id, payload)

    # Header blocks (RFC 9113 §6.2, §6.10)

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise Http2Error("stream_id", "HEADERS where none can be")  # RFC 9113 §5.1.1
        if flags & (PADDED | PRIORITY_FLAG):
            if flags & PADDED:
                payload = _unpadded(payload)
            if flags & PRIORITY_FLAG:
                if len(payload) < 5:
                    raise Http2Error("frame_size", "HEADERS too short", ErrorCode.FRAME_SIZE_ERROR)
                _checked_priority(stream_id, payload)
                payload = payload[5:]
        if flags & END_HEADERS:
            if len(payload) > self._most_block:
                raise Flood("header_block", "a header block without end")
            self._block_complete(stream_id, flags, payload)
            return
        self._block = [payload]
        self._block_octets = len(payload)
        self._block_stream = stream_id
        self._block_flags = flags
        self.since = self._now

    def _continuation(self, flags: int, payload: bytes) -> None:
        assert self._block is not None
        # Nine for the frame itself: empty ones are no way around the limit (CVE-2024-27316).
        self._block_octets += len(payload) + 9
        if self._block_octets > self._most_block:
            raise Flood("header_block", "a header block without end")
        self._block.append(payload)
        if flags & END_HEADERS:
            block, self._block = b"".join(self._block), None
            self.since = None
            self._block_complete(self._block_stream, self._block_flags, block)

    def _block_complete(self, stream_id: int, flags: int, block: bytes) -> None:
        try:
            fields = self._decoder.decode(block)  # whatever it is for: both sides keep one state
        except ValueError as error:
            raise Http2Error("compression", str(error), ErrorCode.COMPRESSION_ERROR) from None
        except OverflowError as error:
            raise Flood("header_list", str(error)) from None
        stream = self.streams.get(stream_id)
        ended = bool(flags & END_STREAM)
        if stream is not None:
            self._trailers(stream, fields, ended)
        elif stream_id > self.last_id:
            self._begin(stream_id, fields, ended)
        elif stream_id in self._was_reset:
            self._meter.spend()
        else:
            if any(first <= stream_id <= last for first, last in self._gaps):
                raise Http2Error("stream_id", f"stream {stream_id} after {self.last_id}")  # RFC 9113 §5.1.1
            raise Http2Error("closed", f"HEADERS on closed stream {stream_id}", ErrorCode.STREAM_CLOSED)

    def _begin(self, stream_id: int, fields: Fields, ended: bool) -> None:
        if stream_id > self.last_id + 2:
            self._gaps.append((self.last_id + 1, stream_id - 1))
        self.last_id = stream_id
        if self.going or len(self.streams) >= self._limits.h2_streams:
            if not self.going:
                self._meter.reset()
            self._write_reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        stream = self.streams[stream_id] = self._sink.new_stream(stream_id)
        stream.send_window = self._initial_window
        stream.client_ended = ended
        self._sink.request(stream, fields, ended)

    def _trailers(self, stream: S, fields: Fields, ended: bool) -> None:
        if stream.client_ended:
            self._stream_error(stream, ErrorCode.STREAM_CLOSED)
        elif not ended or not _whole(stream):
            self._stream_error(stream, ErrorCode.PROTOCOL_ERROR)  # RFC 9113 §8.1
        else:
            stream.client_ended = True
            self._sink.request_trailers(stream, fields)
            if stream.stream_id in self.streams:
                self._sink.request_end(stream)

    # Content (RFC 9113 §6.1, §6.9)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        octets = len(payload)
        self._receive_window -= octets
        if self._receive_window < 0:
            raise Http2Error("window", "more than the connection's window", ErrorCode.FLOW_CONTROL_ERROR)
        stream = self.streams.get(stream_id)
        if stream is None:
            if not stream_id or stream_id > self.last_id:
                raise Http2Error("stream_id", "DATA on an idle stream")
            if stream_id not in self._was_reset:
                raise Http2Error("closed", f"DATA on closed stream {stream_id}", ErrorCode.STREAM_CLOSED)
            if not octets:
                self._meter.spend()
            self._grant_connection(octets)
            return
        ended = bool(flags & END_STREAM)
        if flags & PADDED:
            payload = _unpadded(payload)
        if not payload and not ended:
            self._meter.spend()
        stream.receive_window -= octets
        stream.received_octets += len(payload)
        code = None
        if stream.client_ended:
            code = ErrorCode.STREAM_CLOSED
        elif stream.receive_window < 0:
            code = ErrorCode.FLOW_CONTROL_ERROR
        elif stream.expected is not None and (
            stream.received_octets > stream.expected or (ended and stream.received_octets != stream.expected)
        ):
            code = ErrorCode.PROTOCOL_ERROR  # RFC 9113 §8.1.1
        if code is not None:
            self._grant_connection(octets)
            self._stream_error(stream, code)
            return
        stream.client_ended = ended
        self._sink.request_data(stream, payload, octets)
        if ended and stream_id in self.streams:
            self._sink.request_end(stream)

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error("frame_size", "WINDOW_UPDATE of a wrong length", ErrorCode.FRAME_SIZE_ERROR)
        self._meter.spend(0.05)
        octets = int.from_bytes(payload, "big") & MAX_WINDOW
        if not stream_id:
            if not octets:
                raise Http2Error("window", "WINDOW_UPDATE of nothing")
            self._send_window += octets
            if self._send_window > MAX_WINDOW:
                raise Http2Error("window", "a window beyond the largest", ErrorCode.FLOW_CONTROL_ERROR)
            self._sink.window_opened(None)
            return
        if stream_id > self.last_id:
            raise Http2Error("stream_id", "WINDOW_UPDATE on an idle stream")
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        stream.send_window += octets
        if not octets or stream.send_window > MAX_WINDOW:
            self._stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR if octets else ErrorCode.PROTOCOL_ERROR)
        else:
            self._sink.window_opened(stream)

    # Everything else

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == SETTINGS:
            self._settings(flags, stream_id, payload)
        elif kind == RST_STREAM:
            self._rst_stream(stream_id, payload)
        elif kind == PING:
            _checked_size(stream_id, len(payload), 8)
            self._meter.spend()
            if not flags & ACK:
                self._out.append(ping_ack(payload))
        elif kind == GOAWAY:
            self._meter.spend()
            if stream_id:
                raise Http2Error("stream_id", "GOAWAY on a stream")
            self.going = True
            self._sink.going_away()
        elif kind == PRIORITY:
            self._meter.spend()
            if not stream_id:
                raise Http2Error("stream_id", "PRIORITY on stream 0")
            _checked_size(0, len(payload), 5)
            _checked_priority(stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise Http2Error("push", "PUSH_PROMISE from a client")  # RFC 9113 §8.4
        elif kind == CONTINUATION:
            raise Http2Error("block", "CONTINUATION outside of a header block")
        else:
            self._meter.spend()  # unknown kinds are ignored (RFC 9113 §5.5)

    def _rst_stream(self, stream_id: int, payload: bytes) -> None:
        if not stream_id or stream_id > self.last_id:
            raise Http2Error("stream_id", "RST_STREAM on an idle stream")
        _checked_size(0, len(payload), 4)
        self._meter.reset()
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._sink.stream_reset(stream, int.from_bytes(payload, "big"), True)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & ACK:
            self._meter.spend()  # we ask for one, at the beginning
            _checked_size(stream_id, len(payload), 0)
            return
        # Each of them costs us as much as a frame: one that moves windows, those of all streams.
        self._meter.spend(max(1, len(payload) // 6))
        _checked_size(stream_id, len(payload) % 6, 0)
        self._begun = True
        for at in range(0, len(payload), 6):
            self._set(int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
        self._out.append(head(0, SETTINGS, ACK, 0))

    def _set(self, name: int, value: int) -> None:
        if name == Setting.HEADER_TABLE_SIZE:
            self._encoder.resize(min(value, TABLE))
        elif name == Setting.ENABLE_PUSH:
            if value > 1:
                raise Http2Error("settings", f"ENABLE_PUSH of {value}")
        elif name == Setting.MAX_FRAME_SIZE:
            if not MAX_FRAME <= value < 1 << 24:  # we send none above the least that there may be
                raise Http2Error("settings", f"MAX_FRAME_SIZE of {value}")
        elif name == Setting.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise Http2Error("settings", "a window beyond the largest", ErrorCode.FLOW_CONTROL_ERROR)
            more, self._initial_window = value - self._initial_window, value
            for stream in self.streams.values():
                stream.send_window += more
                if stream.send_window > MAX_WINDOW:
                    raise Http2Error("settings", "a window beyond the largest", ErrorCode.FLOW_CONTROL_ERROR)
            self._sink.window_opened(None)

    # Mistakes with one stream

    def refuse(self, stream: S) -> None:
        """A malformed request: end its stream, at the client's expense.

        :raises Flood: it was the last one.
        """
        self.reset(stream, ErrorCode.PROTOCOL_ERROR)
        self._meter.reset()

    def _stream_error(self, stream: S, code: ErrorCode) -> None:
        self.reset(stream, code)
        self._sink.stream_reset(stream, code, False)
        self._meter.reset()


def _unpadded(payload: bytes) -> bytes:
    """RFC 9113 §6.1: the length of the padding comes first."""
    if not payload:
        raise Http2Error("frame_size", "a padded frame of nothing", ErrorCode.FRAME_SIZE_ERROR)
    padding = payload[0]
    if padding >= len(payload):
        raise Http2Error("padding", "more padding than payload")
    return payload[1 : len(payload) - padding]


def _whole(stream: StreamState) -> bool:
    return stream.expected is None or stream.received_octets == stream.expected


def _checked_size(stream_id: int, size: int, wanted: int) -> None:
    if stream_id:
        raise Http2Error("stream_id", "a frame of the connection on a stream")
    if size != wanted:
        raise Http2Error("frame_size", "a frame of a wrong length", ErrorCode.FRAME_SIZE_ERROR)


def _checked_priority(stream_id: int, payload: bytes) -> None:
    if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == stream_id:
        raise Http2Error("priority", "a stream that depends on itself")
