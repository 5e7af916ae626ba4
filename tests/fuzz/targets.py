"""What is fuzzed: each target takes any octets, reads them in every way that there is, and lets these agree.

They hold what the tests with hypothesis hold, and share their code with them; a fuzzer goes further, because it sees
which lines an input reaches. An :exc:`AssertionError`, or any error that is not declared, is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

import hpack
from hyperframe.frame import DataFrame, PingFrame, RstStreamFrame, WindowUpdateFrame

from lbarray.failover.packet import (
    Advertisement,
    BadAdvertisement,
    checksum,
    decode,
    encode,
    from_ipv4_datagram,
    ip_datagram,
)
from lbarray.http.h2_compression import _first_invalid, decoder, encoder, first_invalid
from lbarray.http.h2_frames import PREFACE
from lbarray.telemetry.access_log import Record, combined_in_python, combined_line
from lbarray.worker.proxy_protocol import BadProxyHeader, proxy_header
from lbarray.worker.tls.tickets import issued, presented
from tests.http import test_fuzz as messages
from tests.http import test_h2_connection as h2
from tests.http import test_hpack as blocks
from tests.rewrite import test_scan as scan
from tests.rewrite.test_foreign import FRAGMENTS
from tests.worker import test_proxy_protocol as proxy

__all__ = ["SEEDS", "TARGETS"]

SOURCE, GROUP = IPv4Address("192.0.2.1"), IPv4Address("224.0.0.18")
WAYS: Final = (True, False)


def _cut(octets: bytes, size: int) -> list[bytes]:
    return [octets[at : at + size] for at in range(0, len(octets), size)]


def requests(data: bytes) -> None:
    """The same requests and the same refusal in C and by llhttp, wherever TCP cuts (the first octet says); and what is
    passed on is read as the same requests, and nothing besides."""
    if not data:
        return
    octets, size = data[1:], data[0] % 64 + 1
    outcomes = []
    for pieces in ([octets] if octets else [], _cut(octets, size)):
        for compiled in WAYS:
            sink, error = messages.read(pieces, compiled=compiled)
            outcomes.append((sink.shown(), error is not None))
    assert outcomes == [outcomes[0]] * 4, outcomes
    if any(head.upgrade for head, _, _ in sink.done):
        return
    again, error = messages.read([messages.passed_on(sink)])
    assert error is None, error
    was, now = ([(head.method, head.target, body) for head, body, _ in each.done] for each in (sink, again))
    assert was == now, (was, now)


def responses(data: bytes) -> None:
    """The same response, whole or cut (the first octet says), in C and by llhttp."""
    if not data:
        return
    octets, size = data[1:], data[0] + 1
    compiled, other = (messages.read_response(octets, size, compiled=way) for way in WAYS)
    assert compiled == other, (compiled, other)


def header_blocks(data: bytes) -> None:
    """Blocks of one connection (each behind an octet with its length) are the same in C and by the library."""
    readers = [decoder(300, compiled=way) for way in WAYS]
    while data:
        block, data = data[1 : 1 + data[0]], data[1 + data[0] :]
        compiled, other = (blocks.outcome(reader, block) for reader in readers)
        assert compiled == other, (block, compiled, other)
        if isinstance(compiled, str):
            return
        assert first_invalid(compiled) == _first_invalid(compiled), compiled
        for way in WAYS:
            written = encoder(compiled=way).encode(compiled)
            for other_way in WAYS:
                assert decoder(1 << 20, compiled=other_way).decode(written) == blocks.lower(compiled), (way, compiled)


def frames(data: bytes) -> None:
    """A client's frames are heard the same wherever TCP cuts (the first octet says)."""
    if not data:
        return
    octets, size = data[1:], data[0] % 64 + 1
    whole, why = h2.read([PREFACE + h2.SETTINGS, *([octets] if octets else [])])
    cut, cut_why = h2.read([PREFACE + h2.SETTINGS, *_cut(octets, size)])
    assert (whole.told, why) == (cut.told, cut_why), (whole.told, why, cut.told, cut_why)


def proxy_headers(data: bytes) -> None:
    """A PROXY header, none, or one that is not complete, wherever TCP cuts; what follows is left alone."""
    outcomes = []
    for pieces in ([data] if data else [], _cut(data, 1)):
        try:
            found, rest = proxy.read(pieces)
            outcomes.append(str((found, rest)))
        except BadProxyHeader as error:
            outcomes.append(error.why)
    assert outcomes[0] == outcomes[1], outcomes


def hellos(data: bytes) -> None:
    """A handshake's messages give nothing but octets of their own."""
    for found in (*presented(data), issued(data, 0x0303), issued(data, 0x0304)):
        assert found in data, (found, data)


def advertisements(data: bytes) -> None:
    """A VRRP datagram is refused by name, or says something that can be said again."""
    try:
        message, source, group = from_ipv4_datagram(data)
        decode(message, source, group)
    except BadAdvertisement as error:
        assert error.why, error
    # The same with a checksum that is right: few are by chance.
    if len(data) >= 8:
        message = data[:6] + b"\0\0" + data[8 : 8 + 4 * data[3]]
        message = message[:6] + checksum(message).to_bytes(2, "big") + message[8:]
        try:
            said = decode(message, SOURCE, GROUP)
        except BadAdvertisement as error:
            assert error.why != "checksum", message
        else:
            assert decode(encode(said, SOURCE, GROUP), SOURCE, GROUP) == said, said


def pages(data: bytes) -> None:
    """A page is rewritten the same by the scan in C and by the regular expression, in pieces (the first octet says)."""
    if not data:
        return
    page, size = data[1:], data[0] + 1
    content, _, changes = scan.rewrite(page, True, size)
    other, _, other_changes = scan.rewrite(page, False, len(page) + 1)
    assert (content, changes) == (other, other_changes), (content, other)
    # What is held is looked at again when there is a ">": why a page was left is not settled before.
    page += b">"
    compiled, expression = scan.rewrite(page, True, size), scan.rewrite(page, False, len(page))
    assert compiled == expression, (compiled, expression)


def log_lines(data: bytes) -> None:
    """A line of the access log is the same in C and in Python, and one line."""
    target, referer, agent = (data + b"||").split(b"|", 2)
    record = Record("2001:db8::1", b"PROPFIND", target, (1, 1), 200, len(data), referer, agent)
    line = combined_line(record, b"24/Nov/2026:22:00:00 +0000")
    assert line == combined_in_python(record, b"24/Nov/2026:22:00:00 +0000"), line
    assert line.count(b"\n") == 1, line


def _hello() -> bytes:
    identities = b"\0\3abc\0\0\0\0"
    content = len(identities).to_bytes(2, "big") + identities
    extensions = b"\0\x2b\0\3\2\3\4" + b"\0\x23\0\2xy" + b"\0\x29" + len(content).to_bytes(2, "big") + content
    body = bytes(34) + b"\0" + b"\0\2\x13\1" + b"\1\0" + len(extensions).to_bytes(2, "big") + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


def _blocks() -> bytes:
    writer = hpack.Encoder()
    made = [writer.encode([*h2.REQUEST, (b"x-foo", b"bar")], huffman=huffman) for huffman in (True, False, True)]
    return b"".join(bytes([len(each)]) + each for each in made)


_ADVERTISEMENT = encode(Advertisement(51, 100, 100, (SOURCE,)), SOURCE, GROUP)
_ALL: Final[tuple[Callable[[bytes], None], ...]] = (
    requests, responses, header_blocks, frames, proxy_headers, hellos, advertisements, pages, log_lines,
)  # fmt: skip
TARGETS: Final = {each.__name__: each for each in _ALL}
#: What a fuzzer begins with.
SEEDS: Final[dict[str, list[bytes]]] = {
    "requests": [b"\5" + each + more for each in messages.GOOD for more in (b"", messages.GOOD[0])],
    "responses": [
        b"\x1e" + head + content
        for head, content in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\n", b"hello"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n", b""),
            (b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n", b"hello"),
        )
    ],
    "header_blocks": [_blocks()],
    "frames": [
        b"\7" + octets
        for octets in (
            h2.request(1) + DataFrame(1, b"abc", flags=["END_STREAM"]).serialize(),
            h2.request(1, flags=("END_HEADERS", "END_STREAM")) + PingFrame(0, b"12345678").serialize(),
            WindowUpdateFrame(0, 9).serialize() + RstStreamFrame(1, 8).serialize() + h2.SETTINGS,
        )
    ],
    "proxy_headers": [proxy_header(version, *ends) + b"GET /" for version in (1, 2) for ends in (proxy.V4, proxy.V6)],
    "pages": [b"\x13" + "".join(fragments).encode() for fragments in (scan.MORE, FRAGMENTS)],
    "log_lines": [b"/a?b=c|https://a.example/|curl/8", b'/"\\|\xff\x1b|x" 200 1\n'],
    "hellos": [_hello()],
    "advertisements": [_ADVERTISEMENT, ip_datagram(_ADVERTISEMENT, SOURCE, GROUP)],
}
