"""Advertisements that only the array's nodes can make."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.authentication import MAX_SKEW_S, TRAILER_OCTETS, WINDOW, Authenticator
from lbarray.failover.packet import Advertisement, BadAdvertisement, decode, encode

A, B, GROUP = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("224.0.0.18")
MESSAGE = encode(Advertisement(51, 150, 100, (IPv4Address("192.0.2.100"),)), A, GROUP)
NOW = 1_800_000_000.0


def authenticator(*secrets: bytes, incarnation: int = 5, array: str = "shop") -> Authenticator:
    return Authenticator(secrets=secrets or (b"k" * 32,), array_name=array, incarnation=incarnation)


class AuthenticatorTests(SynchronousTestCase):
    """Signing and verifying."""

    def refused(self, it: Authenticator, octets: bytes, source: IPv4Address = A, now: float = NOW) -> str:
        error: BadAdvertisement = self.assertRaises(BadAdvertisement, it.verify, octets, source, now)
        return error.why

    def test_round_trip(self) -> None:
        """What one node signs another one hears; the message itself is as it was."""
        signed = authenticator().sign(MESSAGE, A, NOW)
        self.assertEqual(len(signed), len(MESSAGE) + TRAILER_OCTETS)
        self.assertEqual(authenticator().verify(signed, A, NOW), MESSAGE)
        self.assertEqual(decode(signed, A, GROUP).priority, 150)

    def test_unsigned(self) -> None:
        """Without a signature nothing is heard."""
        self.assertEqual(self.refused(authenticator(), MESSAGE), "unsigned")
        self.assertEqual(self.refused(authenticator(), b""), "unsigned")

    def test_every_bit_counts(self) -> None:
        """A flipped bit anywhere, or another sender, and it is not heard."""
        signed = authenticator().sign(MESSAGE, A, NOW)
        for at in range(len(signed)):
            forged = bytearray(signed)
            forged[at] ^= 1
            self.assertIn(self.refused(authenticator(), bytes(forged)), ("wrong_key", "unsigned"))
        self.assertEqual(self.refused(authenticator(), signed, source=B), "wrong_key")

    def test_other_arrays(self) -> None:
        """Another key, or the same key in an array of another name, is another array."""
        signed = authenticator(b"x" * 32).sign(MESSAGE, A, NOW)
        self.assertEqual(self.refused(authenticator(), signed), "wrong_key")
        self.assertEqual(self.refused(authenticator(array="other"), authenticator().sign(MESSAGE, A, NOW)), "wrong_key")

    def test_replayed(self) -> None:
        """Nothing is heard twice."""
        signed, it = authenticator().sign(MESSAGE, A, NOW), authenticator()
        it.verify(signed, A, NOW)
        self.assertEqual(self.refused(it, signed), "replayed")

    def test_recorded_long_ago(self) -> None:
        """A node that has just started hears no recording of a dead one."""
        signed = authenticator().sign(MESSAGE, A, NOW)
        self.assertEqual(self.refused(authenticator(), signed, now=NOW + MAX_SKEW_S + 1), "wrong_time")

    def test_a_clock_that_is_set(self) -> None:
        """Once heard, a node goes on being heard though its clock, or ours, is set."""
        sender, it = authenticator(), authenticator()
        it.verify(sender.sign(MESSAGE, A, NOW), A, NOW)
        it.verify(sender.sign(MESSAGE, A, NOW - 7200), A, NOW)

    def test_restart(self) -> None:
        """A later life of a node begins anew; an earlier one is past."""
        it = authenticator()
        it.verify(authenticator(incarnation=5).sign(MESSAGE, A, NOW), A, NOW)
        it.verify(authenticator(incarnation=6).sign(MESSAGE, A, NOW), A, NOW)
        self.assertEqual(self.refused(it, authenticator(incarnation=5).sign(MESSAGE, A, NOW)), "replayed")

    def test_rotation(self) -> None:
        """Three steps: all accept the new key, all sign with it, the old one goes; nobody is deaf in between."""
        old, new = b"o" * 32, b"n" * 32
        steps = [(old,), (old, new), (new, old), (new,)]
        for before, after in itertools.pairwise(steps):
            for sends, hears in ((before, after), (after, before)):
                authenticator(*hears).verify(authenticator(*sends).sign(MESSAGE, A, NOW), A, NOW)

    @settings(deadline=None, max_examples=50)
    @given(st.permutations(range(20)), st.sets(st.integers(0, 19)))
    def test_any_order_once(self, order: list[int], repeated: set[int]) -> None:
        """In whatever order they arrive: each is heard once."""
        sender, it = authenticator(), authenticator()
        signed = [sender.sign(MESSAGE, A, NOW) for _ in order]
        for number in order:
            it.verify(signed[number], A, NOW)
        for number in repeated:
            self.assertEqual(self.refused(it, signed[number]), "replayed")

    def test_beyond_the_window(self) -> None:
        """What is older than the window is not heard, since nobody remembers whether it was."""
        sender, it = authenticator(), authenticator()
        signed = [sender.sign(MESSAGE, A, NOW) for _ in range(WINDOW + 2)]
        it.verify(signed[-1], A, NOW)
        self.assertEqual(self.refused(it, signed[0]), "replayed")
        it.verify(signed[-WINDOW], A, NOW)
