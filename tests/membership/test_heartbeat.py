"""Heartbeats: signed, fresh, and worth nothing twice."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.membership.heartbeat import BadHeartbeat, Beat, HeartbeatCodec, Kind, ReplayGuard
from lbarray.values import Load, NodeReport, Role

CODEC = HeartbeatCodec(secret=b"0123456789abcdef\n", array_name="shop")

reports = st.builds(
    NodeReport,
    name=st.text("abcdefgh-._0123456789", min_size=1, max_size=63),
    address=st.ip_addresses(v=4) | st.just(IPv6Address("2001:db8::7")),
    mac=st.just(b"") | st.binary(min_size=6, max_size=6).filter(any),
    roles=st.sampled_from([Role.NONE, Role.WORKER, Role.SCHEDULER, Role.WORKER | Role.SCHEDULER]),
    load=st.builds(
        Load,
        connections=st.integers(0, 2**32 - 1),
        requests_per_s=st.floats(0, 1e6, width=32),
        cpu=st.floats(0, 1, width=32),
    ),
    accepting=st.booleans(),
    draining=st.booleans(),
    weight=st.integers(1, 1000),
    incarnation=st.integers(1, 2**63),
)
beats = st.builds(
    Beat,
    kind=st.sampled_from(Kind),
    sequence=st.integers(1, 2**40),
    sent_at=st.integers(0, 2**33).map(float),
    report=reports,
)


def beat(sequence: int = 1, *, incarnation: int = 5, sent_at: float = 1000.0, name: str = "b") -> Beat:
    report = NodeReport(name=name, address=IPv4Address("192.0.2.2"), incarnation=incarnation)
    return Beat(Kind.ALIVE, sequence, sent_at, report)


class CodecTests(SynchronousTestCase):
    """Datagrams."""

    @settings(deadline=None, max_examples=100)
    @given(beats)
    def test_round_trip(self, said: Beat) -> None:
        """What is encoded is decoded, whatever it says."""
        self.assertEqual(CODEC.decode(CODEC.encode(said)), said)

    def refused(self, datagram: bytes, codec: HeartbeatCodec = CODEC) -> str:
        error: BadHeartbeat = self.assertRaises(BadHeartbeat, codec.decode, datagram)
        return error.why

    def test_wrong_key(self) -> None:
        """A heartbeat signed with another key is named as that."""
        other = HeartbeatCodec(secret=b"fedcba9876543210", array_name="shop")
        self.assertEqual(self.refused(CODEC.encode(beat()), other), "wrong_key")

    def test_other_array(self) -> None:
        """Two arrays with the same key do not mix."""
        other = HeartbeatCodec(secret=b"0123456789abcdef", array_name="blog")
        self.assertEqual(self.refused(CODEC.encode(beat()), other), "wrong_key")

    def test_white_space_around_the_key(self) -> None:
        """An editor's line end is no other key."""
        same = HeartbeatCodec(secret=b"  0123456789abcdef", array_name="shop")
        self.assertEqual(same.decode(CODEC.encode(beat())), beat())

    def test_every_bit_counts(self) -> None:
        """No octet can be changed on the way."""
        datagram = CODEC.encode(beat())
        for place in range(len(datagram)):
            changed = bytearray(datagram)
            changed[place] ^= 0x10
            self.assertIn(self.refused(bytes(changed)), ("wrong_key", "no_heartbeat"))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=600))
    def test_noise(self, datagram: bytes) -> None:
        """Any octets are refused, nothing else."""
        self.refused(datagram)


class ReplayTests(SynchronousTestCase):
    """What was there before is not let in again."""

    def refused(self, guard: ReplayGuard, said: Beat, wall_clock: float = 1000.0) -> str:
        error: BadHeartbeat = self.assertRaises(BadHeartbeat, guard.admit, said, wall_clock)
        return error.why

    def test_forward_only(self) -> None:
        """The same or an earlier sequence is a replay."""
        guard = ReplayGuard()
        guard.admit(beat(5), 1000.0)
        guard.admit(beat(6), 1000.0)
        self.assertEqual(self.refused(guard, beat(6)), "replayed")
        self.assertEqual(self.refused(guard, beat(5)), "replayed")

    def test_restart(self) -> None:
        """A restarted node begins its sequence anew; its former life is over."""
        guard = ReplayGuard()
        guard.admit(beat(500, incarnation=5), 1000.0)
        guard.admit(beat(1, incarnation=6), 1000.0)
        self.assertEqual(self.refused(guard, beat(501, incarnation=5)), "replayed")

    def test_nodes_apart(self) -> None:
        """One node's sequence says nothing of another's."""
        guard = ReplayGuard()
        guard.admit(beat(5), 1000.0)
        guard.admit(beat(1, name="c"), 1000.0)

    def test_old_recording(self) -> None:
        """A node that just started lets no recording of last week in."""
        self.assertEqual(self.refused(ReplayGuard(max_skew_s=60), beat(), 1061.0), "wrong_time")
        self.assertEqual(self.refused(ReplayGuard(max_skew_s=60), beat(), 939.0), "wrong_time")
        ReplayGuard(max_skew_s=60).admit(beat(), 1059.0)
