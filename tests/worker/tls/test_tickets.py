"""Sessions seen in handshakes: OpenSSL on both sides, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.authority import Authority
from lbarray.values import TlsSession
from lbarray.worker.tls.certificates import CertificateFiles, read_certificate
from lbarray.worker.tls.contexts import Policy, certificate_context
from lbarray.worker.tls.tickets import HandshakeSessions, issued, presented

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


def client_context(version: int, options: int = 0) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_options(options)
    return context


class Shaken:
    """One handshake, with what was seen of it."""

    def __init__(self, server: SSL.Context, client: SSL.Context, session: Any = None, *, noted: bool = True) -> None:
        self.server = SSL.Connection(server, None)
        self.server.set_accept_state()
        if noted:
            self.server.set_app_data(HandshakeSessions())
        self.client = SSL.Connection(client, None)
        if session is not None:
            self.client.set_session(session)
        self.client.set_connect_state()
        for _ in range(4):
            for each, other in ((self.client, self.server), (self.server, self.client)):
                try:
                    each.do_handshake()
                except SSL.WantReadError:
                    pass
                try:
                    other.bio_write(each.bio_read(65536))
                except SSL.WantReadError:
                    pass
        try:
            self.client.recv(1)  # TLS 1.3: tickets come after the handshake
        except SSL.WantReadError:
            pass
        self.session = self.client.get_session()
        for each in (self.client, self.server):  # OpenSSL drops the session of a connection that was cut off
            each.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)

    @property
    def seen(self) -> TlsSession:
        found: TlsSession = self.server.get_app_data().session()
        return found


class TicketTests(SynchronousTestCase):
    """A client that comes back is known by what it was given."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        files = CertificateFiles(*Authority(folder).issue("a", "a.example"))
        self.certificate = read_certificate(files, key="services.https.tls")
        self.ours = self.server_context()

    def server_context(self) -> SSL.Context:
        policy = Policy(tells_sessions=True)
        return certificate_context(policy, [self.certificate], session_id=b"https", key="services.https.tls")

    def test_chain(self) -> None:
        """Each connection brings what one before it was given: at the process that gave it, and at one that cannot
        open it."""
        theirs = self.server_context()
        for version in VERSIONS:
            client = client_context(version)
            first = Shaken(self.ours, client)
            self.assertEqual(first.seen.presented, ())
            given = set(first.seen.issued)
            self.assertTrue(given)
            session = first.session
            for context, resumed in ((self.ours, True), (theirs, False), (theirs, True), (self.ours, False)):
                again = Shaken(context, client, session)
                self.assertEqual(lib.SSL_session_reused(again.server._ssl), resumed)
                self.assertTrue(set(again.seen.presented) & given, (version, resumed))
                given |= set(again.seen.issued)
                session = again.session

    def test_others(self) -> None:
        """Two clients have nothing in common."""
        for version in VERSIONS:
            one, other = (Shaken(self.ours, client_context(version)).seen for _ in range(2))
            self.assertFalse(set(one.issued) & set(other.issued))

    def test_session_id(self) -> None:
        """A TLS 1.2 client without tickets is known by the session's id, which stays."""
        client = client_context(SSL.TLS1_2_VERSION, SSL.OP_NO_TICKET)
        first = Shaken(self.ours, client)
        again = Shaken(self.ours, client, first.session)
        self.assertEqual(len(first.seen.issued), 1)
        self.assertEqual(again.seen, TlsSession(first.seen.issued, first.seen.issued))

    def test_nobody_asked(self) -> None:
        """Connections that carry nothing to write into are left alone."""
        shaken = Shaken(self.ours, client_context(SSL.TLS1_3_VERSION), noted=False)
        self.assertIsNotNone(shaken.session)
        self.assertIsNone(shaken.server.get_app_data())

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_any_octets(self, data: st.DataObject) -> None:
        """What is cut off or changed says nothing, or less: never an error, never more than its own octets."""
        identities = data.draw(st.lists(st.binary(min_size=1, max_size=20), max_size=6))
        offered = b"".join(len(each).to_bytes(2, "big") + each + bytes(4) for each in identities)
        content = len(offered).to_bytes(2, "big") + offered
        extensions = b"\0\x2b\0\3\2\3\4" + b"\0\x29" + len(content).to_bytes(2, "big") + content
        body = bytes(34) + b"\0" + b"\0\2\x13\1" + b"\1\0" + len(extensions).to_bytes(2, "big") + extensions
        hello = b"\1" + len(body).to_bytes(3, "big") + body
        self.assertEqual(presented(hello), identities[:4])
        cut = hello[: data.draw(st.integers(0, len(hello)))]
        at = data.draw(st.integers(0, len(hello) - 1))
        changed = hello[:at] + data.draw(st.binary(min_size=1, max_size=3)) + hello[at + 1 :]
        for message in (cut, changed, data.draw(st.binary(max_size=80))):
            for found in (*presented(message), issued(message, 0x0303), issued(message, 0x0304)):
                self.assertIn(found, message)
