"""What routes do: redirects, splits, rewriting of paths, edits of fields."""

from __future__ import annotations

import random
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.actions import FieldEdits, Redirect, Rewrite, Split, Template
from lbarray.http.events import ResponseHead
from lbarray.values import ClientAddress
from tests.backends.parts import CLIENT, get


class RedirectTests(SynchronousTestCase):
    """Sending clients elsewhere."""

    def to(self, text: str, target: bytes = b"/a/b?c=d") -> bytes:
        return Redirect(Template(text)).answer(get(target), CLIENT).fields[0][1]

    def test_template(self) -> None:
        """The new place is made of the request's parts."""
        self.assertEqual(self.to("https://{host}{target}"), b"https://a.example/a/b?c=d")
        self.assertEqual(self.to("/new{path}?{query}&from={scheme}"), b"/new/a/b?c=d&from=http")
        self.assertRaises(ValueError, Template, "{nothing}")

    def test_not_open(self) -> None:
        """A path of two slashes is no host."""
        self.assertEqual(self.to("{path}", b"//evil.example/x"), b"/evil.example/x")


class SplitTests(SynchronousTestCase):
    """A few to the canary."""

    def test_by_weight(self) -> None:
        """The parts are about those that were asked for, and the other pool is the second choice."""
        split = Split({"web": 90, "canary": 10}, sticky=False, seed=b"s", chance=random.Random(1))
        chosen = [tuple(split.choose(CLIENT)) for _ in range(2000)]
        self.assertEqual(set(chosen), {("web", "canary"), ("canary", "web")})
        self.assertApproximates(chosen.count(("canary", "web")) / 2000, 0.1, 0.03)

    def test_sticky(self) -> None:
        """A client stays at its pool, on every node."""
        one, other = (
            Split({"web": 50, "canary": 50}, sticky=True, seed=b"s", chance=random.Random(seed)) for seed in (1, 2)
        )
        clients = [ClientAddress(f"192.0.2.{number}", 1) for number in range(200)]
        chosen = [next(one.choose(client)) for client in clients]
        self.assertEqual(chosen, [next(other.choose(client)) for client in clients])
        self.assertGreater(min(Counter(chosen).values()), 60)


class RewriteTests(SynchronousTestCase):
    """Other paths for back ends."""

    def test_prefix(self) -> None:
        """The route's own prefix is replaced, the query stays."""
        for matched, prefix, target, wanted in (
            ("/old", "/new", b"/old/x?y", b"/new/x?y"),
            ("/old", "/new", b"/old", b"/new"),
            ("/old/", "/", b"/old/x", b"/x"),
            ("/old", "/", b"/old", b"/"),
            ("/", "/app", b"/x?a=/b", b"/app/x?a=/b"),
            ("/", "/app", b"*", b"*"),
        ):
            self.assertEqual(Rewrite(matched=matched, prefix=prefix).target(target), wanted)

    def test_regex(self) -> None:
        """The first find is replaced, with its groups."""
        rewrite = Rewrite(regex=r"^/user/(\d+)/", to=r"/u\1/")
        self.assertEqual(rewrite.target(b"/user/12/user/13/?x"), b"/u12/user/13/?x")
        self.assertEqual(rewrite.target(b"/other"), b"/other")


class EditTests(SynchronousTestCase):
    """Header fields."""

    def test_request(self) -> None:
        """Remove, set, add; names in any case; values of the request."""
        edits = FieldEdits(
            remove=["x-gone"],
            set_to={"X-Set": Template("new"), "X-Client": Template("{client}")},
            add={"X-More": Template("b")},
        )
        head = get(b"/", (b"X-Gone", b"1"), (b"x-set", b"old"), (b"X-More", b"a"))
        edits.request(head, CLIENT)
        self.assertEqual(
            head.fields,
            [(b"X-More", b"a"), (b"X-Set", b"new"), (b"X-Client", b"192.0.2.200"), (b"X-More", b"b")],
        )

    def test_response(self) -> None:
        """The same for responses."""
        head = ResponseHead(200, [(b"Server", b"x"), (b"A", b"1")])
        FieldEdits(remove=["Server"], add={"B": Template("2")}).response(head)
        self.assertEqual(head.fields, [(b"A", b"1"), (b"B", b"2")])
        self.assertFalse(FieldEdits())
