"""Pages whose policy keeps the CDN out are not sent there."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.csp import permits


class PolicyTests(SynchronousTestCase):
    """What browsers would load from https://cdn.example/static/ (W3C CSP Level 3)."""

    def permits(self, *policies: bytes) -> bool:
        return permits(policies, b"https://cdn.example", [b"/static/"])

    def test_permitted(self) -> None:
        """No word about it, any host, its scheme, its name."""
        for policy in (
            b"",
            b"frame-ancestors 'none'",
            b"default-src *",
            b"default-src https:",
            b"default-src http:",
            b"default-src 'self' cdn.example",
            b"Default-Src 'self' HTTPS://CDN.example/static/",
            b"default-src https://cdn.example:443",
            b"default-src cdn.example:*",
            b"default-src *.example",
            b"default-src 'none'; script-src cdn.example; style-src cdn.example; img-src *; font-src *; media-src *",
            b"script-src 'none'; script-src-elem cdn.example",
            b"img-src *; img-src 'none'",
        ):
            self.assertTrue(self.permits(policy), policy)

    def test_forbidden(self) -> None:
        """Other hosts, other ports, one kind of content alone, hosts that do not count."""
        for policy in (
            b"default-src 'self'",
            b"default-src 'none'",
            b"img-src",
            b"img-src 'self'",
            b"font-src 'self' data:",
            b"default-src *.cdn.example",
            b"default-src cdn.example:8443",
            b"default-src cdn.example/other/",
            b"default-src cdn.example/static/x.js",
            b"script-src 'nonce-x' 'strict-dynamic' cdn.example",
            b"img-src *, default-src 'self'",
        ):
            self.assertFalse(self.permits(policy), policy)

    def test_every_policy_counts(self) -> None:
        """Of several fields each may forbid."""
        self.assertFalse(self.permits(b"default-src *", b"img-src 'self'"))

    def test_port_of_the_network(self) -> None:
        """A CDN on a port of its own has to be named with it."""
        self.assertTrue(permits([b"img-src cdn.example:8443"], b"https://cdn.example:8443", []))
        self.assertFalse(permits([b"img-src cdn.example"], b"https://cdn.example:8443", []))
