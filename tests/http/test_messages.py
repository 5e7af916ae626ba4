"""Targets, fields and cookies."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.cookies import cookie_values, set_cookie, without_cookie
from lbarray.http.events import RequestHead
from lbarray.http.refusals import BadMessage
from lbarray.http.target import normal_form, normal_target


def request(*fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"/", list(fields))


class TargetTests(SynchronousTestCase):
    """One form for every target."""

    def test_forms(self) -> None:
        """Origin, absolute and asterisk forms; the host in lower case, without its port and with it."""
        for method, target, host, wanted in (
            (b"GET", b"/a?b", b"A.example:8080", (b"/a?b", b"a.example", b"a.example:8080")),
            (b"GET", b"http://x.example", b"X.example", (b"/", b"x.example", b"x.example")),
            (b"GET", b"HTTP://x.example:80?q", None, (b"/?q", b"x.example", b"x.example:80")),
            (b"GET", b"https://x.example/a/../b", None, (b"/b", b"x.example", b"x.example")),
            (b"OPTIONS", b"*", b"y", (b"*", b"y", b"y")),
            (b"OPTIONS", b"http://y", b"y", (b"*", b"y", b"y")),
            (b"GET", b"/", b"[2001:DB8::1]:443", (b"/", b"[2001:db8::1]", b"[2001:db8::1]:443")),
            (b"GET", b"/", b"a.example.", (b"/", b"a.example", b"a.example")),
            (b"GET", b"/", b"a.example:", (b"/", b"a.example", b"a.example")),
            (b"GET", b"/", None, (b"/", b"", b"")),
        ):
            self.assertEqual(normal_form(method, target, host), wanted)

    def test_one_spelling(self) -> None:
        """Whatever a path is spelled like, routes and back ends see it spelled one way (RFC 3986 §6.2.2)."""
        for target, wanted in (
            (b"/a/./b", b"/a/b"),
            (b"/a/../b?x=/../%41", b"/b?x=/../%41"),
            (b"/a/b/..", b"/a/"),
            (b"/a/.", b"/a/"),
            (b"/%61dmin", b"/admin"),
            (b"/a/%2e%2E/b", b"/b"),
            (b"/a%2fb", b"/a%2Fb"),
            (b"/%252e%252e/a", b"/%252e%252e/a"),
            (b"/.well-known/x", b"/.well-known/x"),
            (b"/a/...", b"/a/..."),
            (b"//a", b"//a"),
            (b"/a?%zz", b"/a?%zz"),
        ):
            self.assertEqual(normal_target(target), wanted)

    @settings(deadline=None, max_examples=80)
    @given(st.lists(st.sampled_from([b"a", b".", b"..", b"%2e", b"%2E.", b"", b"b%41", b"%2F"]), max_size=8))
    def test_normal_is_final(self, segments: list[bytes]) -> None:
        """A normal form is its own, and has no dot segments."""
        try:
            once = normal_target(b"/" + b"/".join(segments))
        except BadMessage:
            return
        self.assertEqual(normal_target(once), once)
        self.assertFalse({b".", b".."} & set(once.split(b"/")))

    def test_user_in_authority(self) -> None:
        """No user information: it serves only to deceive."""
        self.assertRaises(BadMessage, normal_form, b"GET", b"http://a@b/", b"b")


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
