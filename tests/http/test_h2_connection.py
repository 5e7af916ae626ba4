"""One HTTP/2 connection without I/O, against frames of any kind and against the library ``h2`` as its client."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import Fields
from lbarray.http.h2_connection import ServerConnection
from lbarray.http.h2_floods import Flood
from lbarray.http.h2_frames import PREFACE, ErrorCode, Http2Error
from lbarray.http.h2_streams import CONNECTION_WINDOW, StreamState
from lbarray.http.limits import Limits
from lbarray.testing import every_split

REQUEST = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/")]
SETTINGS = SettingsFrame(0).serialize()
LIMITS = Limits(max_head=2000, h2_streams=5)


class Heard:
    """A sink that keeps what it hears; content is out of the way at once."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.told: list[tuple[object, ...]] = []
        self.protocol: ServerConnection[StreamState] = ServerConnection(self, limits)
        self.protocol.start()

    def new_stream(self, stream_id: int) -> StreamState:
        stream = StreamState()
        stream.stream_id = stream_id
        return stream

    def request(self, stream: StreamState, fields: Fields, ended: bool) -> None:
        for name, value in fields:
            if name == b"content-length" and value.isdigit():
                stream.expected = int(value)
        self.told.append(("request", stream.stream_id, tuple(fields), ended))

    def request_data(self, stream: StreamState, data: bytes, octets: int) -> None:
        self.told.append(("data", stream.stream_id, data, octets))
        self.protocol.grant(stream, octets)

    def request_trailers(self, stream: StreamState, fields: Fields) -> None:
        self.told.append(("trailers", stream.stream_id, tuple(fields)))

    def request_end(self, stream: StreamState) -> None:
        self.told.append(("end", stream.stream_id))

    def stream_reset(self, stream: StreamState, code: int, by_client: bool) -> None:
        self.told.append(("reset", stream.stream_id, int(code), by_client))

    def window_opened(self, stream: StreamState | None) -> None:
        self.told.append(("window", stream and stream.stream_id))

    def going_away(self) -> None:
        self.told.append(("going",))


def read(pieces: list[bytes], limits: Limits = LIMITS) -> tuple[Heard, str | None]:
    """What is heard of these octets, and why no more."""
    heard = Heard(limits)
    try:
        for piece in pieces:
            heard.protocol.receive(piece, 1.0)
    except Http2Error as error:
        return heard, error.why
    return heard, None


def request(stream_id: int, *more: tuple[bytes, bytes], flags: tuple[str, ...] = ("END_HEADERS",)) -> bytes:
    return HeadersFrame(stream_id, Encoder().encode([*REQUEST, *more]), flags=list(flags)).serialize()


class ConnectionTests(SynchronousTestCase):
    """What is heard of a client."""

    def test_in_pieces(self) -> None:
        """The same, however TCP cuts: a request in several frames, padded, with trailers, and what goes around it."""
        block = Encoder().encode(REQUEST)
        octets = b"".join(
            [
                PREFACE,
                SETTINGS,
                HeadersFrame(1, block[:3]).serialize(),
                ContinuationFrame(1, block[3:], flags=["END_HEADERS"]).serialize(),
                DataFrame(1, b"abc", pad_length=2, flags=["PADDED"]).serialize(),
                PingFrame(0, b"12345678").serialize(),
                request(1, flags=("END_HEADERS", "END_STREAM")),
            ]
        )
        whole, _ = read([octets])
        fields = tuple(REQUEST)
        self.assertEqual(
            whole.told[:4],
            [("request", 1, fields, False), ("data", 1, b"abc", 6), ("trailers", 1, fields), ("end", 1)],
        )
        for pieces in every_split(octets):
            self.assertEqual(read(pieces)[0].told, whole.told)

    def test_no_preface(self) -> None:
        """Something else than the preface, or no SETTINGS behind it."""
        self.assertEqual(read([b"GET / HTTP/1.1\r\n"])[1], "preface")
        self.assertEqual(read([PREFACE[:10] + b"x"])[1], "preface")
        self.assertEqual(read([PREFACE + WindowUpdateFrame(0, 5).serialize()])[1], "preface")
        self.assertEqual(read([PREFACE + SettingsFrame(0, flags=["ACK"]).serialize()])[1], "preface")

    def test_length_of_content(self) -> None:
        """Content shorter or longer than it says ends its stream, and only that (RFC 9113 §8.1.1)."""
        for length, content in ((b"5", b"abc"), (b"2", b"abc")):
            data = DataFrame(1, content, flags=["END_STREAM"]).serialize()
            heard, why = read([PREFACE + SETTINGS + request(1, (b"content-length", length)) + data])
            self.assertEqual((heard.told[-1], why), (("reset", 1, ErrorCode.PROTOCOL_ERROR, False), None))
        data = DataFrame(1, b"abc").serialize()
        trailers = request(1, flags=("END_HEADERS", "END_STREAM"))
        heard, _ = read([PREFACE + SETTINGS + request(1, (b"content-length", b"4")) + data + trailers])
        self.assertEqual(heard.told[-1], ("reset", 1, ErrorCode.PROTOCOL_ERROR, False))

    def test_after_the_end(self) -> None:
        """Content or another block behind the end of a stream (RFC 9113 §5.1)."""
        for late in (DataFrame(1, b"x").serialize(), request(1)):
            heard, _ = read([PREFACE + SETTINGS + request(1, flags=("END_HEADERS", "END_STREAM")) + late])
            self.assertEqual(heard.told[-1], ("reset", 1, ErrorCode.STREAM_CLOSED, False))

    def test_after_our_reset(self) -> None:
        """What was on its way when we reset a stream is no mistake; its window goes back to the connection."""
        heard, _ = read([PREFACE + SETTINGS + request(1)])
        heard.protocol.reset(heard.protocol.streams[1], ErrorCode.CANCEL)
        heard.protocol.take()
        for _ in range(CONNECTION_WINDOW // 4 // 16384):
            heard.protocol.receive(DataFrame(1, bytes(16384)).serialize(), 1.0)
        heard.protocol.receive(request(1, flags=("END_HEADERS", "END_STREAM")), 1.0)
        heard.protocol.receive(WindowUpdateFrame(1, window_increment=1).serialize(), 1.0)
        self.assertEqual(len(heard.told), 1)
        self.assertEqual(heard.protocol.take(), WindowUpdateFrame(0, CONNECTION_WINDOW // 4).serialize())

    def test_after_both_ends(self) -> None:
        """A stream that is over stays so; a number that was left out cannot be used any more."""
        ended = ("END_HEADERS", "END_STREAM")
        for late, why in ((request(5), "closed"), (request(3), "stream_id"), (DataFrame(5, b"").serialize(), "closed")):
            heard, _ = read([PREFACE + SETTINGS + request(1, flags=ended) + request(5, flags=ended)])
            heard.protocol.finish(heard.protocol.streams[5])
            error: Http2Error = self.assertRaises(Http2Error, heard.protocol.receive, late, 1.0)
            self.assertEqual(error.why, why)

    def test_window(self) -> None:
        """A client that sends more than its window: of a stream, or of the connection."""
        heard = Heard()
        heard.request_data = lambda stream, data, octets: None  # type: ignore[method-assign]
        heard.protocol.receive(PREFACE + SETTINGS + request(1), 1.0)
        for _ in range(4):
            heard.protocol.receive(DataFrame(1, bytes(16384)).serialize(), 1.0)
        self.assertEqual(heard.told[-1], ("reset", 1, ErrorCode.FLOW_CONTROL_ERROR, False))
        heard.protocol._receive_window = 10
        error: Http2Error = self.assertRaises(
            Http2Error, heard.protocol.receive, DataFrame(1, bytes(11)).serialize(), 1.0
        )
        self.assertEqual(error.code, ErrorCode.FLOW_CONTROL_ERROR)

    def test_their_windows(self) -> None:
        """A new initial window holds for open streams too, and may make theirs negative (RFC 9113 §6.9.2)."""
        heard, _ = read([PREFACE + SETTINGS + request(1)])
        stream = heard.protocol.streams[1]
        heard.protocol.send_data(stream, bytes(100), end=False)
        heard.protocol.receive(SettingsFrame(0, settings={4: 50}).serialize(), 1.0)
        self.assertEqual(heard.protocol.window(stream), -50)
        heard.protocol.receive(WindowUpdateFrame(1, window_increment=80).serialize(), 1.0)
        self.assertEqual((heard.protocol.window(stream), heard.told[-1]), (30, ("window", 1)))

    def test_waiting(self) -> None:
        """A frame or block that has not come whole has begun at a time; one of content has the request's."""
        heard, _ = read([PREFACE + SETTINGS])
        self.assertIsNone(heard.protocol.since)
        octets = request(1)
        heard.protocol.receive(octets[:2], 5.0)
        heard.protocol.receive(octets[2:20], 6.0)
        self.assertEqual(heard.protocol.since, 5.0)
        heard.protocol.receive(octets[20:] + HeadersFrame(3, b"").serialize(), 7.0)
        heard.protocol.receive(ContinuationFrame(3, b"").serialize(), 8.0)
        self.assertEqual(heard.protocol.since, 7.0)
        block = ContinuationFrame(3, Encoder().encode(REQUEST), flags=["END_HEADERS"]).serialize()
        heard.protocol.receive(block + DataFrame(1, b"abcd").serialize()[:10], 9.0)
        self.assertIsNone(heard.protocol.since)

    def test_large_block(self) -> None:
        """A response head beyond one frame goes in several (RFC 9113 §4.2)."""
        heard, _ = read([PREFACE + SETTINGS + request(1)])
        client = H2Connection(H2Configuration(header_encoding=None))
        client.initiate_connection()
        client.send_headers(1, REQUEST, end_stream=True)
        heard.protocol.send_block(
            heard.protocol.streams[1],
            [(b":status", b"200"), *((b"x-%d" % at, b"\xff" * 900) for at in range(40))],
            end=True,
        )
        client.max_inbound_frame_size = 16384
        client.decoder.max_header_list_size = 1 << 20
        events = client.receive_data(heard.protocol.take())
        responses = [event for event in events if isinstance(event, ResponseReceived)]
        self.assertEqual(len(responses[0].headers or ()), 41)


BLOCK = Encoder().encode(REQUEST)
FRAMES = st.one_of(
    st.builds(lambda n, f: HeadersFrame(n, BLOCK, flags=f), st.sampled_from([1, 3, 3, 5, 7]), st.sampled_from(
        [["END_HEADERS"], ["END_HEADERS", "END_STREAM"], [], ["END_STREAM"]])),
    st.builds(lambda n, d, f: DataFrame(n, d, flags=f), st.sampled_from([1, 3, 5, 9]), st.binary(max_size=9),
        st.sampled_from([[], ["END_STREAM"]])),
    st.builds(lambda n, f: ContinuationFrame(n, b"", flags=f), st.sampled_from([1, 3]),
        st.sampled_from([[], ["END_HEADERS"]])),
    st.builds(RstStreamFrame, st.sampled_from([1, 3, 5, 9])),
    st.builds(WindowUpdateFrame, st.sampled_from([0, 1, 3]), st.sampled_from([1, 70000, 2**31 - 1])),
    st.builds(lambda v: SettingsFrame(0, settings=v),
        st.dictionaries(st.integers(1, 7), st.sampled_from([0, 1, 20000, 2**31]))),
    st.just(PingFrame(0, b"12345678")), st.just(PriorityFrame(1, depends_on=3)), st.just(GoAwayFrame(0)),
)  # fmt: skip


class FuzzTests(SynchronousTestCase):
    """Frames in any order, and octets that are none."""

    @settings(deadline=None, max_examples=300)
    @given(st.lists(FRAMES, max_size=12), st.integers(1, 50))
    def test_cuts(self, frames: list[Frame], size: int) -> None:
        """Whatever comes is heard the same wherever TCP cuts, and ends in nothing but an error of the connection."""
        octets = PREFACE + SETTINGS + b"".join(frame.serialize() for frame in frames)
        whole, why = read([octets])
        cut, cut_why = read([octets[at : at + size] for at in range(0, len(octets), size)])
        self.assertEqual((whole.told, why), (cut.told, cut_why))

    @settings(deadline=None, max_examples=300)
    @given(st.lists(FRAMES, max_size=6), st.binary(max_size=60), st.integers(0, 200))
    def test_noise(self, frames: list[Frame], noise: bytes, place: int) -> None:
        """The same with octets replaced by others."""
        octets = bytearray(b"".join(frame.serialize() for frame in frames))
        octets[place : place + len(noise)] = noise
        whole, why = read([PREFACE + SETTINGS, bytes(octets)])
        cut, cut_why = read([PREFACE + SETTINGS, *(bytes(octets[at : at + 7]) for at in range(0, len(octets), 7))])
        self.assertEqual((whole.told, why), (cut.told, cut_why))

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.tuples(st.binary(max_size=40_000), st.integers(0, 3)), min_size=1, max_size=5))
    def test_h2_as_client(self, requests: list[tuple[bytes, int]]) -> None:
        """The library sends requests with content, and gets each back: our frames, blocks and windows suit it."""
        client = H2Connection(H2Configuration(header_encoding=None))
        client.initiate_connection()
        heard = Heard()
        answered: set[int] = set()
        got: dict[int, bytes] = {}
        ended: set[int] = set()
        for content, more in requests:
            stream_id = client.get_next_available_stream_id()
            client.send_headers(
                stream_id, [*REQUEST, *((b"x-%d" % at, content[:50].hex().encode()) for at in range(more))]
            )
            for at in range(0, len(content), 16384):
                client.send_data(stream_id, content[at : at + 16384])
                self._talk(client, heard, answered, got, ended)
            client.end_stream(stream_id)
            self._talk(client, heard, answered, got, ended)
            self.assertEqual(got.get(stream_id, b""), content)
            self.assertIn(stream_id, ended)

    def _talk(
        self, client: H2Connection, heard: Heard, answered: set[int], got: dict[int, bytes], ended: set[int]
    ) -> None:
        protocol = heard.protocol
        protocol.receive(client.data_to_send(), 1.0)
        told, heard.told = heard.told, []
        for kind, stream_id, *what in told:
            stream: Any = protocol.streams.get(stream_id)  # type: ignore[call-overload]
            if kind == "request":
                protocol.send_block(stream, [(b":status", b"200"), (b"X-Y", b"z")], end=False)
            elif kind == "data":
                protocol.send_data(stream, what[0], end=False)  # type: ignore[arg-type]
            elif kind == "end":
                protocol.send_data(stream, b"", end=True)
                protocol.finish(stream)
        for event in client.receive_data(protocol.take()):
            if isinstance(event, DataReceived):
                got[event.stream_id or 0] = got.get(event.stream_id or 0, b"") + (event.data or b"")
                client.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, StreamEnded):
                ended.add(event.stream_id or 0)


class FloodTests(SynchronousTestCase):
    """Endless blocks, whatever they are made of."""

    def test_blocks(self) -> None:
        """Of one frame, of many, of empty ones, and of a few octets that become many."""
        entry = Encoder().encode([(b"x", b"y" * 1000)])
        for octets in (
            HeadersFrame(1, bytes(4001), flags=["END_HEADERS"]).serialize(),
            HeadersFrame(1, b"").serialize() + ContinuationFrame(1, bytes(400)).serialize() * 10,
            HeadersFrame(1, b"").serialize() + ContinuationFrame(1, b"").serialize() * 445,
            HeadersFrame(1, entry + b"\xbe" * 10, flags=["END_HEADERS"]).serialize(),
        ):
            heard, _ = read([PREFACE + SETTINGS])
            self.assertRaises(Flood, heard.protocol.receive, octets, 1.0)
