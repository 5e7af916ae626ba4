"""What the program asks the kernel: whether this machine holds a connection, SYN cookies included."""

from __future__ import annotations

import socket
import struct
import subprocess
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.hiding import show_again
from lbarray.scheduler.abi import NOBODY, ROW
from lbarray.scheduler.bpf_plane import BpfPlane
from lbarray.scheduler.packet_plane import PacketPlane
from lbarray.values import Address, HashBy, PlaneService, ServiceId, WorkerTarget
from tests.bpf.bench import PEER_B, TABLE_SIZE, make_packet_plane, make_plane, own_network, through
from tests.bpf.frames import ACK, FIN, RST, SYN, ethernet, ipv4, ipv6, tcp

HERE, CLIENT = ip_address("192.0.2.100"), ip_address("198.51.100.7")
HERE6, CLIENT6 = ip_address("2001:db8::100"), ip_address("2001:db8:1::7")
DELIVERED, PASSED_ON = "passed_delivered", "passed_on"


class HeldTests(SynchronousTestCase):
    """A worker whose every row was another's before: it passes on what it does not hold."""

    mode = "tc"

    def setUp(self) -> None:
        own_network(self)
        for address in (HERE, CLIENT, HERE6, CLIENT6):
            at_once = ["nodad"] if address.version == 6 else []
            place = f"{address}/{address.max_prefixlen}"
            subprocess.run(["ip", "addr", "add", place, "dev", "lo", *at_once], check=True)
        self.listeners = {}
        for address in (HERE, HERE6):
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            self.listeners[address] = socket.create_server((str(address), 80), family=family)
            self.addCleanup(self.listeners[address].close)
        self.plane = self.make()
        self.addCleanup(self.plane.detach)
        self.plane.attach()
        self.plane.set_services([PlaneService(ServiceId(each, 80), HashBy.CONNECTION) for each in (HERE, HERE6)])
        self.plane.set_workers(
            [
                WorkerTarget(0, "a", ip_address("192.0.2.1"), b"\2\0\0\0\0\1", local=True),
                WorkerTarget(1, "b", ip_address("192.0.2.2"), PEER_B),
            ]
        )
        self.plane.apply(ROW.pack(0, 1, NOBODY, NOBODY) * TABLE_SIZE)

    def make(self) -> BpfPlane | PacketPlane:
        """The plane."""
        return make_plane(self, self.mode)

    def connected(self, here: Address, client: Address) -> tuple[socket.socket, int]:
        """A connection that is held here, and its client's port."""
        end, accepted = self.both_ends(here, client)
        self.addCleanup(accepted.close)
        return end, end.getsockname()[1]

    def both_ends(self, here: Address, client: Address) -> tuple[socket.socket, socket.socket]:
        """Of a connection: the client's, and the one that is held here."""
        family = socket.AF_INET if here.version == 4 else socket.AF_INET6
        end = socket.socket(family)
        end.bind((str(client), 0))
        end.connect((str(here), 80))
        accepted, _ = self.listeners[here].accept()
        self.addCleanup(end.close)
        return end, accepted

    def fate(self, here: Address, client: Address, segment: bytes) -> str:
        """What becomes of a segment that another node has scheduled here."""
        packet = ipv4(segment, str(client), here) if here.version == 4 else ipv6(segment, str(client), here)
        before = self.plane.counters().packets
        through(self.plane, ethernet(packet, source=PEER_B))
        after = self.plane.counters().packets
        (name,) = [name for name in after if name != "passed_again" and after[name] != before[name]]
        return name

    def test_established(self) -> None:
        """Segments of a connection that is held here are delivered; all others had another worker."""
        for here, client in ((HERE, CLIENT), (HERE6, CLIENT6)):
            _, port = self.connected(here, client)
            for flags in (ACK, ACK | FIN, RST):
                self.assertEqual(self.fate(here, client, tcp(port, flags=flags)), DELIVERED)
                self.assertEqual(self.fate(here, client, tcp(port ^ 1, flags=flags)), PASSED_ON)

    def test_errors(self) -> None:
        """So are errors about them."""
        _, port = self.connected(HERE, CLIENT)
        for number, wanted in ((port, DELIVERED), (port ^ 1, PASSED_ON)):
            quoted = ipv4(tcp(80, number, payload=b"")[:8], str(HERE), CLIENT, length=1500)
            error = ethernet(
                ipv4(struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + quoted, "203.0.113.1", HERE, protocol=1),
                source=PEER_B,
            )
            before = self.plane.counters().packets
            through(self.plane, error)
            self.assertEqual(self.plane.counters().packets[wanted] - before[wanted], 1)

    def test_closing(self) -> None:
        """A connection that the client has ended is still held."""
        end, port = self.connected(HERE, CLIENT)
        end.shutdown(socket.SHUT_WR)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(port)), DELIVERED)

    def test_ended(self) -> None:
        """One that waits to be forgotten is not: its client may have begun anew from the same port, elsewhere."""
        for here, client in ((HERE, CLIENT), (HERE6, CLIENT6)):
            end, accepted = self.both_ends(here, client)
            port = end.getsockname()[1]
            accepted.close()
            self.assertEqual(end.recv(1), b"")
            end.close()
            for flags in (ACK | FIN, ACK):
                self.assertEqual(self.fate(here, client, tcp(port, flags=flags)), PASSED_ON)

    def test_syn_cookie(self) -> None:
        """With SYN cookies a connection exists in the client's acknowledgement alone: a true one is delivered."""
        subprocess.run(["sysctl", "-qw", "net.ipv4.tcp_syncookies=2"], check=True)
        for here, client in ((HERE, CLIENT), (HERE6, CLIENT6)):
            acknowledgement = self.answered_syn(here, client, 3456)
            # The rows have changed since this SYN came, so that what is remembered of it is not enough.
            self.fate(here, client, tcp(3456, flags=SYN, payload=b""))
            self.plane.apply(ROW.pack(0, 1, NOBODY, NOBODY) * TABLE_SIZE)
            wrong = acknowledgement[:8] + bytes([acknowledgement[8] ^ 0x40]) + acknowledgement[9:]
            self.assertEqual(self.fate(here, client, wrong), PASSED_ON)
            self.assertEqual(self.fate(here, client, acknowledgement), DELIVERED)

    def test_asked_once(self) -> None:
        """What the kernel said of a connection holds until the rows change."""
        end, port = self.connected(HERE, CLIENT)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(port)), DELIVERED)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(port ^ 1)), PASSED_ON)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
        self.assertEqual(self.fate(HERE, CLIENT, tcp(port)), DELIVERED)
        self.plane.apply(ROW.pack(0, 1, NOBODY, NOBODY) * TABLE_SIZE)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(port)), PASSED_ON)

    def test_begins_anew(self) -> None:
        """A connection that was passed on is delivered as soon as it begins here: the client uses its port again."""
        self.assertEqual(self.fate(HERE, CLIENT, tcp(3457)), PASSED_ON)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(3457, flags=SYN)), DELIVERED)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(3457)), DELIVERED)

    def test_kernel_is_asked_for_own_rows_only(self) -> None:
        """Rows that were never another worker's ask nobody, whatever is remembered."""
        self.assertEqual(self.fate(HERE, CLIENT, tcp(3458)), PASSED_ON)
        self.plane.apply(ROW.pack(0, NOBODY, NOBODY, NOBODY) * TABLE_SIZE)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(3458)), DELIVERED)

    def answered_syn(self, here: Address, client: Address, port: int) -> bytes:
        """Send a SYN by hand; the acknowledgement that its answer asks for."""
        version6 = here.version == 6
        family = socket.AF_INET6 if version6 else socket.AF_INET
        # The kernel has no connection of this port, and would reset what it did not ask for.
        with socket.socket(family) as holder:
            holder.bind((str(client), port))
            with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
                raw.settimeout(5)
                raw.bind((str(client), 0))
                raw.sendto(self.with_checksum(here, client, tcp(port, flags=2, payload=b"")), (str(here), 0))
                while True:
                    received = raw.recv(2048)
                    segment = received if version6 else received[(received[0] & 15) * 4 :]
                    source, destination, sequence, _, _, flags = struct.unpack_from("!HHIIBB", segment)
                    if (source, destination, flags & 0x12) == (80, port, 0x12):
                        break
        return struct.pack("!HHIIBBHHH", port, 80, 2, (sequence + 1) & 0xFFFFFFFF, 5 << 4, ACK, 1000, 0, 0)

    def with_checksum(self, here: Address, client: Address, segment: bytes) -> bytes:
        """A segment with TCP's checksum over the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1)."""
        pseudo = client.packed + here.packed + struct.pack("!II", len(segment), 6) + segment
        total: int = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return segment[:16] + (~total & 0xFFFF).to_bytes(2, "big") + segment[18:]


class HeldXdpTests(HeldTests):
    """The same as XDP."""

    mode = "xdp-generic"


class HeldPacketPlaneTests(HeldTests):
    """The same by the plane in Python, which asks by ``sock_diag``."""

    def make(self) -> BpfPlane | PacketPlane:
        return make_packet_plane(self)

    def setUp(self) -> None:
        super().setUp()
        # It hides the VIPs from its interface's stack, and the connections of these tests go over the same one.
        show_again()

    def test_syn_cookie(self) -> None:
        """With SYN cookies whatever may be the acknowledgement of one is delivered: of a SYN that came here, for as
        long as cookies last."""
        assert isinstance(self.plane, PacketPlane)
        subprocess.run(["sysctl", "-qw", "net.ipv4.tcp_syncookies=2"], check=True)
        for here, client in ((HERE, CLIENT), (HERE6, CLIENT6)):
            self.fate(here, client, tcp(3456, flags=SYN, payload=b""))
            self.plane.apply(ROW.pack(0, 1, NOBODY, NOBODY) * TABLE_SIZE)
            self.assertEqual(self.fate(here, client, tcp(3456)), DELIVERED)
            self.assertEqual(self.fate(here, client, tcp(3458)), PASSED_ON)
        for _ in range(2):  # what is older than the cookies is forgotten with the next SYN
            self.plane._reactor.advance(130)
            self.fate(HERE, CLIENT, tcp(4000, flags=SYN, payload=b""))
        self.plane.apply(ROW.pack(0, 1, NOBODY, NOBODY) * TABLE_SIZE)
        self.assertEqual(self.fate(HERE, CLIENT, tcp(3456)), PASSED_ON)
