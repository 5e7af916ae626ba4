"""The fields of a heartbeat."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.membership.datagram import BadDatagram
from lbarray.membership.heartbeat import decode_report, encode_report
from lbarray.values import Load, NodeReport, Role

reports = st.builds(
    NodeReport,
    name=st.just("b"),
    address=st.ip_addresses(v=4) | st.just(IPv6Address("2001:db8::7")),
    mac=st.just(b"") | st.binary(min_size=6, max_size=6),
    roles=st.sampled_from([Role.NONE, Role.WORKER, Role.SCHEDULER, Role.WORKER | Role.SCHEDULER]),
    load=st.builds(
        Load,
        connections=st.integers(0, 2**32 - 1),
        requests_per_s=st.floats(0, 1e6, width=32),
        cpu=st.floats(0, 1, width=32),
        accept_queue=st.integers(0, 2**32 - 1),
    ),
    accepting=st.booleans(),
    draining=st.booleans(),
    weight=st.integers(1, 1000),
    share=st.integers(1, 1000),
    able=st.none() | st.frozensets(st.text("abcdefgh-0123456789", min_size=1, max_size=30), max_size=25),
    trouble=st.text(max_size=60),
    incarnation=st.just(5),
)
REPORT = NodeReport(name="b", address=IPv4Address("192.0.2.2"), incarnation=5)


def decode(body: bytes) -> NodeReport:
    return decode_report(body, name="b", incarnation=5)


class FieldTests(SynchronousTestCase):
    """Reports in, octets out, and back."""

    @settings(deadline=None, max_examples=100)
    @given(reports)
    def test_round_trip(self, report: NodeReport) -> None:
        """What is encoded is decoded, whatever it says."""
        self.assertEqual(decode(encode_report(report)), report)

    def test_later_version(self) -> None:
        """Fields that a later version has are passed over."""
        self.assertEqual(decode(b"\xc8\x03new" + encode_report(REPORT) + b"\xc9\x00"), REPORT)

    def test_earlier_version(self) -> None:
        """Fields that an earlier version lacks have their defaults."""
        self.assertEqual(decode(b"\x01\x04\xc0\x00\x02\x02"), REPORT)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=60))
    def test_nonsense(self, body: bytes) -> None:
        """Fields that make no sense are refused as that, and do nothing else."""
        try:
            decode(body)
        except BadDatagram:
            pass

    def test_cut_off(self) -> None:
        """A field that ends too early is refused."""
        self.assertRaises(BadDatagram, decode, encode_report(REPORT)[:-1])
