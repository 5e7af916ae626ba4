"""Malformed requests and attempts at smuggling, through a worker to a back end that writes down what arrives."""

from __future__ import annotations

import attrs

from tests.worker.engine import OK, Backend, Engine

FORWARDED = (
    b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\nVia: 1.1 lbarray\r\n"
)


@attrs.frozen
class Case:
    """What a client sends; the status of each answer; and what of it reaches the back end, octet for octet."""

    sent: bytes
    statuses: tuple[int, ...]
    arrived: bytes = b""


def get(
    lines: bytes = b"", target: bytes = b"/", version: bytes = b"1.1", host: bytes = b"Host: a.example\r\n"
) -> bytes:
    """A request of one head."""
    return b"GET %b HTTP/%b\r\n%b%b\r\n" % (target, version, host, lines)


def post(lines: bytes, content: bytes = b"") -> bytes:
    """A request with content."""
    return b"POST / HTTP/1.1\r\nHost: a.example\r\n%b\r\n%b" % (lines, content)


def seen(lines: bytes = b"", target: bytes = b"/", method: bytes = b"GET", end: bytes = b"") -> bytes:
    """The same as a back end sees it."""
    return b"%b %b HTTP/1.1\r\nHost: a.example\r\n%b%b%b\r\n" % (method, target, lines, FORWARDED, end)


SMUGGLED = get(target=b"/smuggled")
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


def refused(status: int, sent: bytes) -> Case:
    """Nothing of it arrives."""
    return Case(sent, (status,))


CORPUS = {
    # Where the content ends (RFC 9112 §6.3, §11.2)
    "CL.TE": refused(400, post(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n" + SMUGGLED)),
    "TE.CL": refused(400, post(CHUNKED + b"Content-Length: 4\r\n", CHUNKS)),
    "TE.TE, one hidden by a space": refused(400, post(CHUNKED + b"Transfer-Encoding : x\r\n", CHUNKS)),
    "TE.TE, twice": refused(400, post(CHUNKED * 2, CHUNKS)),
    "TE.TE, list": refused(400, post(b"Transfer-Encoding: identity, chunked\r\nContent-Length: 3\r\n", CHUNKS)),
    "TE behind a vertical tab": refused(400, post(b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n", CHUNKS)),
    "TE behind a lone LF": refused(400, post(b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n", CHUNKS)),
    "TE behind a lone CR": refused(400, post(b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: 3\r\n", CHUNKS)),
    "TE folded": refused(400, post(b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n", CHUNKS)),
    "TE xchunked": refused(501, post(b"Transfer-Encoding: xchunked\r\n", CHUNKS)),
    "TE quoted": refused(501, post(b'Transfer-Encoding: "chunked"\r\n', CHUNKS)),
    "TE with a parameter": refused(501, post(b"Transfer-Encoding: chunked;q=1\r\n", CHUNKS)),
    "TE in HTTP/1.0": refused(400, b"POST / HTTP/1.0\r\nHost: a.example\r\n" + CHUNKED + b"\r\n" + CHUNKS),
    "CL twice": refused(400, post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"12345" + SMUGGLED)),
    "CL twice, equal": refused(400, post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"12345" + SMUGGLED)),
    "CL list": refused(400, post(b"Content-Length: 5, 5\r\n", b"12345")),
    "CL signed": refused(400, post(b"Content-Length: +5\r\n", b"12345")),
    "CL negative": refused(400, post(b"Content-Length: -1\r\n", b"12345")),
    "CL hexadecimal": refused(400, post(b"Content-Length: 0x5\r\n", b"12345")),
    "CL empty": refused(400, post(b"Content-Length: \r\n", b"12345")),
    "CL in pieces": refused(400, post(b"Content-Length: 5 5\r\n", b"12345")),
    "CL behind a space": refused(400, post(b"Content-Length : 5\r\n", b"12345")),
    "CL beyond 64 bits": refused(413, post(b"Content-Length: 18446744073709551621\r\n", b"12345")),
    "chunk size negative": refused(400, post(CHUNKED, b"-1\r\n")),
    "chunk size beyond 64 bits": refused(413, post(CHUNKED, b"10000000000000005\r\n12345\r\n0\r\n\r\n")),
    "chunk size with a space": refused(400, post(CHUNKED, b"5 \r\n12345\r\n0\r\n\r\n")),
    "chunk size ends in LF": refused(400, post(CHUNKED, b"5\n12345\r\n0\r\n\r\n")),
    "chunk data ends in LF": refused(400, post(CHUNKED, b"5\r\n12345\n0\r\n\r\n")),
    "chunk extension with LF": refused(400, post(CHUNKED, b"5;a\nb\r\n12345\r\n0\r\n\r\n")),
    "chunk extension with quoted CRLF": refused(400, post(CHUNKED, b'5;a="\r\n"\r\n12345\r\n0\r\n\r\n')),
    "chunk longer than said": refused(400, post(CHUNKED, b"3\r\n12345\r\n0\r\n\r\n")),
    "trailer that frames": refused(400, post(CHUNKED, b"0\r\nContent-Length: 5\r\n\r\n" + SMUGGLED)),
    "content behind an upgrade": Case(
        post(b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
        (200,),
        seen(b"Content-Length: %d\r\n" % len(SMUGGLED), method=b"POST") + SMUGGLED,
    ),
    "content of GET": Case(
        get(b"Content-Length: %d\r\n" % len(SMUGGLED)) + SMUGGLED,
        (200,),
        seen(b"Content-Length: %d\r\n" % len(SMUGGLED)) + SMUGGLED,
    ),
    "underscore": Case(get(b"Transfer_Encoding: chunked\r\n"), (200,), seen(b"Transfer_Encoding: chunked\r\n")),
    # Fields
    "space before the colon": refused(400, get(b"X : y\r\n")),
    "folded": refused(400, get(b"X: y\r\n z\r\n")),
    "first field folded": refused(400, get(host=b" Host: a.example\r\n")),
    "NUL": refused(400, get(b"X: a\0b\r\n")),
    "control": refused(400, get(b"X: a\x07b\r\n")),
    "no colon": refused(400, get(b"X\r\n")),
    "no name": refused(400, get(b": y\r\n")),
    "name of eight bits": refused(400, get(b"X\xff: y\r\n")),
    "LF for CRLF": refused(400, get().replace(b"\r\n", b"\n")),
    "end by LF": refused(400, get()[:-2] + b"\n"),
    "large": refused(431, get(b"X: " + b"y" * 4000 + b"\r\n")),
    "many": refused(431, get(b"X: y\r\n" * 250)),
    "value of eight bits": Case(get(b"X: \xe9\r\n"), (200,), seen(b"X: \xe9\r\n")),
    # Host (RFC 9112 §3.2)
    "no Host": refused(400, get(host=b"")),
    "two Hosts": refused(400, get(b"Host: b.example\r\n")),
    "two equal Hosts": refused(400, get(b"Host: a.example\r\n")),
    "empty Host": refused(400, get(host=b"Host:\r\n")),
    "Host with a path": refused(400, get(host=b"Host: a.example/x\r\n")),
    "Host with a user": refused(400, get(host=b"Host: a.example@b.example\r\n")),
    "Host list": refused(400, get(host=b"Host: a.example, b.example\r\n")),
    "Host with a port beyond": refused(400, get(host=b"Host: a.example:99999\r\n")),
    "Host is not the target's": refused(400, get(target=b"http://b.example/")),
    "Host in capitals": Case(get(host=b"Host: A.Example.\r\n"), (200,), seen()),
    "absolute form": Case(get(target=b"http://a.example/x?y"), (200,), seen(target=b"/x?y")),
    # Targets
    "fragment": refused(400, get(target=b"/a#b")),
    "no slash": refused(400, get(target=b"a")),
    "asterisk": refused(400, get(target=b"*")),
    "other scheme": refused(400, get(target=b"file:///etc/passwd")),
    "space in the target": refused(400, get(target=b"/a b")),
    "eight bits in the target": refused(400, get(target=b"/\xff")),
    "backslash": refused(400, get(target=b"/a\\..\\b")),
    "NUL in the path": refused(400, get(target=b"/a%00")),
    "bad escape": refused(400, get(target=b"/a%2")),
    "beyond the root": refused(400, get(target=b"/a/../../b")),
    "beyond the root, escaped": refused(400, get(target=b"/%2e%2e/b")),
    "dots with a parameter": refused(400, get(target=b"/a/..;/b")),
    "dots": Case(get(target=b"/a/../b/./c"), (200,), seen(target=b"/b/c")),
    "dots, escaped": Case(get(target=b"/a/%2e%2E/b"), (200,), seen(target=b"/b")),
    "letters, escaped": Case(get(target=b"/%61dmin/%7e%2f"), (200,), seen(target=b"/admin/~%2F")),
    "long target": refused(414, get(target=b"/" + b"x" * 3000)),
    # Request lines
    "TLS": refused(400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "CONNECT": refused(501, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"),
    "TRACE": refused(501, b"TRACE / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
    "small letters": refused(501, b"get / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
    "HTTP/0.9": refused(505, b"GET /\r\n\r\n"),
    "HTTP/2.0": refused(505, get(version=b"2.0")),
    "HTTP/1.10": refused(400, get(version=b"1.10")),
    "HTTP/2 preface": refused(400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # One hop's business
    "Connection names what we add": Case(
        get(b"Connection: X-Forwarded-For, Via, Host\r\nX-Forwarded-For: 6.6.6.6\r\n"), (200,), seen()
    ),
    "what a client claims of itself": Case(
        get(b"X-Forwarded-Host: b.example\r\nX-Forwarded-Proto: https\r\nForwarded: for=x\r\nX-Real-IP: 6.6.6.6\r\n"),
        (200,),
        seen(),
    ),
    "h2c": Case(get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"), (200,), seen()),
    "TE": Case(
        get(b"TE: trailers, deflate\r\nConnection: TE\r\n"), (200,), seen(end=b"Connection: TE\r\nTE: trailers\r\n")
    ),
    # Several requests
    "pipelined": Case(get() + get(target=b"/2"), (200, 200), seen() + seen(target=b"/2")),
    "the second is bad": Case(get() + get(b"X : y\r\n"), (200, 400), seen()),
    "the second has no Host": Case(get() + get(host=b""), (200, 400), seen()),
    "more behind the last": Case(get(b"Connection: close\r\n") + SMUGGLED, (200,), seen()),
    "trailers": Case(
        post(CHUNKED, b"2;q=1\r\nab\r\n0\r\nX-Sum: 1\r\nAuthorization: x\r\nX-Forwarded-For: y\r\n\r\n"),
        (200,),
        seen(method=b"POST", end=CHUNKED) + b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
}


class CorpusTests(Engine):
    """Each case on a connection of its own, in one piece and octet by octet."""

    async def outcome(self, case: Case, *, whole: bool) -> tuple[list[int], bytes]:
        """Statuses of the answers, and what the back end got."""
        server = self.servers[0]
        server.asked = b""
        client = await self.connect()
        if whole:
            client.transport.write(case.sent)
        else:
            client.transport.setTcpNoDelay(True)
            for at in range(len(case.sent)):
                client.transport.write(case.sent[at : at + 1])
        wanted = len(case.statuses)
        await client.until(
            lambda: client.closed or (client.got.count(b"HTTP/1.1 ") == wanted and client.got.endswith((b"hi", b"\n")))
        )
        answers = client.got.split(b"HTTP/1.1 ")[1:]
        client.transport.abortConnection()
        return [int(answer[:3]) for answer in answers], server.asked

    async def test_corpus(self) -> None:
        """Every case has its statuses, and the back end gets exactly what it should."""

        def script(backend: Backend, data: bytes) -> None:
            backend.count = getattr(backend, "count", b"") + data  # type: ignore[attr-defined]
            while backend.count:  # type: ignore[attr-defined]
                rest = _behind_first_request(backend.count)  # type: ignore[attr-defined]
                if rest is None:
                    return
                backend.count = rest  # type: ignore[attr-defined]
                backend.transport.write(OK)

        self.serve(script)
        wrong = []
        for name, case in CORPUS.items():
            for whole in (True, False):
                if not whole and len(case.sent) > 1000:
                    continue
                statuses, arrived = await self.outcome(case, whole=whole)
                if (tuple(statuses), arrived) != (case.statuses, case.arrived):
                    wrong.append((name, whole, statuses, arrived))
        self.assertEqual(wrong, [])


def _behind_first_request(octets: bytes) -> bytes | None:
    """What follows the first request, read as RFC 9112 has it; ``None`` while it is not complete."""
    head, end, rest = octets.partition(b"\r\n\r\n")
    if not end:
        return None
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"transfer-encoding" in lines:
        place = rest.find(b"0\r\n")
        last = rest.find(b"\r\n\r\n", place)
        return rest[last + 4 :] if last >= 0 else None
    length = int(lines.get(b"content-length", b"0"))
    return rest[length:] if len(rest) >= length else None
