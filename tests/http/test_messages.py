"""Targets, fields and cookies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.cookies import cookie_values, set_cookie, without_cookie
from lbarray.http.events import RequestHead
from lbarray.http.fields import end_to_end
from lbarray.http.refusals import BadMessage
from lbarray.http.target import normal_form


def request(*fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"/", list(fields))


class TargetTests(SynchronousTestCase):
    """One form for every target."""

    def test_forms(self) -> None:
        """Origin, absolute and asterisk forms; the host in lower case without its port."""
        for method, target, host, wanted in (
            (b"GET", b"/a?b", b"A.example:8080", (b"/a?b", b"a.example")),
            (b"GET", b"http://x.example", b"y", (b"/", b"x.example")),
            (b"GET", b"HTTP://x.example:80?q", b"y", (b"/?q", b"x.example")),
            (b"GET", b"https://x.example/a/../b", b"y", (b"/a/../b", b"x.example")),
            (b"OPTIONS", b"*", b"y", (b"*", b"y")),
            (b"GET", b"/", b"[2001:DB8::1]:443", (b"/", b"[2001:db8::1]")),
            (b"GET", b"/", b"", (b"/", b"")),
        ):
            self.assertEqual(normal_form(method, target, host), wanted)

    def test_user_in_authority(self) -> None:
        """No user information: it serves only to deceive."""
        self.assertRaises(BadMessage, normal_form, b"GET", b"http://a@b/", b"b")


class HopByHopTests(SynchronousTestCase):
    """What goes on to the next hop (RFC 9110 §7.6.1)."""

    def test_taken_out(self) -> None:
        """The fields of this hop, and those that Connection names."""
        head = request(
            (b"Host", b"a"),
            (b"Connection", b"close, X-Hop"),
            (b"Keep-Alive", b"5"),
            (b"X-Hop", b"1"),
            (b"TE", b"trailers"),
            (b"X-End", b"2"),
        )
        self.assertEqual(end_to_end(head), ([(b"Host", b"a"), (b"X-End", b"2")], False, False))

    def test_framing_is_told(self) -> None:
        """Whether chunked, whether of a given length."""
        self.assertEqual(end_to_end(request((b"Transfer-Encoding", b"chunked")))[1:], (True, False))
        self.assertEqual(end_to_end(request((b"content-length", b"1")))[1:], (False, True))

    def test_host_cannot_be_named_away(self) -> None:
        """A client must not take from the back end what both depend on."""
        head = request((b"Host", b"a"), (b"Content-Length", b"1"), (b"Connection", b"host, content-length"))
        self.assertEqual(len(end_to_end(head)[0]), 2)


class CookieTests(SynchronousTestCase):
    """Finding, taking out, making."""

    def test_found(self) -> None:
        """In any field, at any place, quoted or not; not in another one's value."""
        head = request((b"Cookie", b"a=1; LB=x"), (b"cookie", b'LB="y"; bLB=z; c=LB=q'))
        self.assertEqual(cookie_values(head, b"LB"), [b"x", b"y"])

    def test_taken_out(self) -> None:
        """The others stay as they were; an empty field goes."""
        head = request((b"Cookie", b"a=1; LB=x; b=2"), (b"X", b"LB=1"), (b"Cookie", b"LB=y"))
        without_cookie(head, b"LB")
        self.assertEqual(head.fields, [(b"Cookie", b"a=1; b=2"), (b"X", b"LB=1")])

    def test_made(self) -> None:
        """No script reads it, and no plain connection carries one that was given over TLS."""
        self.assertEqual(
            set_cookie("LB", "x", secure=True), (b"Set-Cookie", b"LB=x; Path=/; HttpOnly; SameSite=Lax; Secure")
        )
        self.assertNotIn(b"Secure", set_cookie("LB", "x", secure=False)[1])
