"""Datagrams: sealed, fresh, and worth nothing twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.membership.datagram import LONGEST, BadDatagram, DatagramCodec, Kind, ReplayGuard, Stamp

CODEC = DatagramCodec(secret=b"0123456789abcdef\n", array_name="shop")

stamps = st.builds(
    Stamp,
    kind=st.sampled_from(Kind),
    sender=st.text("abcdefgh-._0123456789", min_size=1, max_size=63),
    incarnation=st.integers(1, 2**63),
    sequence=st.integers(1, 2**40),
    sent_at=st.integers(0, 2**33).map(float),
)


def stamp(
    sequence: int = 1,
    *,
    incarnation: int = 5,
    sent_at: float = 1000.0,
    name: str = "b",
    kind: Kind = Kind.ALIVE,
) -> Stamp:
    return Stamp(kind, name, incarnation, sequence, sent_at)


class CodecTests(SynchronousTestCase):
    """Datagrams."""

    @settings(deadline=None, max_examples=100)
    @given(stamps, st.binary(max_size=1233))
    def test_round_trip(self, said: Stamp, body: bytes) -> None:
        """What is sealed is opened, whatever it says."""
        self.assertEqual(CODEC.open(CODEC.seal(said, body)), (said, body))

    def refused(self, datagram: bytes, codec: DatagramCodec = CODEC) -> str:
        error: BadDatagram = self.assertRaises(BadDatagram, codec.open, datagram)
        return error.why

    def test_wrong_key(self) -> None:
        """A datagram sealed with another key is named as that."""
        other = DatagramCodec(secret=b"fedcba9876543210", array_name="shop")
        self.assertEqual(self.refused(CODEC.seal(stamp(), b"x"), other), "wrong_key")

    def test_other_array(self) -> None:
        """Two arrays with the same key do not mix."""
        other = DatagramCodec(secret=b"0123456789abcdef", array_name="blog")
        self.assertEqual(self.refused(CODEC.seal(stamp(), b"x"), other), "wrong_key")

    def test_rotation(self) -> None:
        """While the key is being replaced, what either key sealed is opened, and each node seals with its first."""
        old, both, new = (
            DatagramCodec(secret=b"o" * 32, array_name="x"),
            DatagramCodec(secret=b"n" * 32, array_name="x", accepted=[b"o" * 32]),
            DatagramCodec(secret=b"n" * 32, array_name="x"),
        )
        self.assertEqual(both.open(old.seal(stamp(), b"x"))[1], b"x")
        self.assertEqual(new.open(both.seal(stamp(), b"y"))[1], b"y")
        self.assertEqual(self.refused(both.seal(stamp(), b"y"), old), "wrong_key")

    def test_white_space_around_the_key(self) -> None:
        """An editor's line end is no other key."""
        same = DatagramCodec(secret=b"  0123456789abcdef", array_name="shop")
        self.assertEqual(same.open(CODEC.seal(stamp(), b"x")), (stamp(), b"x"))

    def test_every_bit_counts(self) -> None:
        """No octet can be changed on the way."""
        datagram = CODEC.seal(stamp(), b"body")
        for place in range(len(datagram)):
            changed = bytearray(datagram)
            changed[place] ^= 0x10
            self.assertIn(self.refused(bytes(changed)), ("wrong_key", "no_heartbeat"))

    def test_hidden(self) -> None:
        """Who listens on the wire cannot read what is said; the same body never looks the same."""
        first, second = (CODEC.seal(stamp(sequence), b"a ticket key") for sequence in (1, 2))
        self.assertNotIn(b"ticket", first)
        self.assertNotEqual(first[-28:], second[-28:])

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda tail: b"LBA2" + tail))
    def test_noise(self, datagram: bytes) -> None:
        """Any octets are refused, nothing else."""
        self.refused(datagram)

    def test_inventors_fill_nothing(self) -> None:
        """Datagrams of invented senders leave nothing behind."""
        codec = DatagramCodec(secret=b"0123456789abcdef", array_name="shop")
        other = DatagramCodec(secret=b"fedcba9876543210", array_name="shop")
        for number in range(100):
            self.refused(other.seal(stamp(name=f"n{number}"), b""), codec)
        self.assertEqual(codec._ciphers, {})

    def test_too_long(self) -> None:
        """What does not fit is the caller's mistake."""
        self.assertRaises(ValueError, CODEC.seal, stamp(), bytes(LONGEST))


class ReplayTests(SynchronousTestCase):
    """What was there before is not let in again."""

    def refused(self, guard: ReplayGuard, said: Stamp, wall_clock: float = 1000.0) -> str:
        error: BadDatagram = self.assertRaises(BadDatagram, guard.admit, said, wall_clock)
        return error.why

    def test_heartbeats_go_forward(self) -> None:
        """The same or an earlier heartbeat is a replay: it would take back what the newer one said."""
        guard = ReplayGuard()
        guard.admit(stamp(5), 1000.0)
        guard.admit(stamp(7), 1000.0)
        for sequence in (7, 6, 5):
            self.assertEqual(self.refused(guard, stamp(sequence)), "replayed")

    def test_messages_may_overtake(self) -> None:
        """Messages pass in any order, each once, also after a newer heartbeat."""
        guard = ReplayGuard()
        guard.admit(stamp(9), 1000.0)
        for sequence in (3, 12, 4, 11):
            guard.admit(stamp(sequence, kind=Kind.MESSAGE), 1000.0)
        for sequence in (3, 4, 9, 11, 12):
            self.assertEqual(self.refused(guard, stamp(sequence, kind=Kind.MESSAGE)), "replayed")

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.integers(1, 3000), max_size=200))
    def test_each_once(self, sequences: list[int]) -> None:
        """Whatever the order, no sequence passes twice, and one within the window passes once."""
        guard, passed, newest = ReplayGuard(), set(), 0
        for sequence in sequences:
            expected = sequence not in passed and newest - sequence < guard.WINDOW
            try:
                guard.admit(stamp(sequence, kind=Kind.MESSAGE), 1000.0)
                admitted = True
            except BadDatagram:
                admitted = False
            self.assertEqual(admitted, expected)
            passed |= {sequence} if admitted else set()
            newest = max(newest, sequence)

    def test_restart(self) -> None:
        """A restarted node begins its sequence anew; its former life is over."""
        guard = ReplayGuard()
        guard.admit(stamp(500, incarnation=5), 1000.0)
        guard.admit(stamp(1, incarnation=6), 1000.0)
        self.assertEqual(self.refused(guard, stamp(501, incarnation=5)), "replayed")

    def test_nodes_apart(self) -> None:
        """One node's sequence says nothing of another's."""
        guard = ReplayGuard()
        guard.admit(stamp(5), 1000.0)
        guard.admit(stamp(1, name="c"), 1000.0)

    def test_old_recording(self) -> None:
        """A node that just started lets no recording of last week in."""
        self.assertEqual(self.refused(ReplayGuard(max_skew_s=60), stamp(), 1061.0), "wrong_time")
        self.assertEqual(self.refused(ReplayGuard(max_skew_s=60), stamp(), 939.0), "wrong_time")
        ReplayGuard(max_skew_s=60).admit(stamp(), 1059.0)
