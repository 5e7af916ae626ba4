"""Clients behind a narrow path: what routers say of answers that are too large reaches the worker that sent them, and
what routers cut into pieces comes together at one worker. It is where direct return usually breaks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.namespaces import Host
from lbarray.testbed.nodes import NODES, VIP, VIP6, Array
from tests.system.test_array import need_namespaces

ROUTER, ROUTER6 = "10.77.0.251", "fd77::251"
VISITOR, VISITOR6 = "10.79.0.2", "fd79::2"
#: Octets of a packet that the visitor's segment can carry, of which neither end knows.
NARROW = 1300
#: Of the site's largest file.
LARGE = 256 * 8192


class NarrowTests(SynchronousTestCase):
    """A visitor beyond a router."""

    def setUp(self) -> None:
        need_namespaces()

    def array(self, plane: str) -> Array:
        scheduler = f'\n[scheduler]\nplane = "{plane}"\nfeedback = false\nslow_start = "1s"\n'
        array = Array(ipv6=True, edit=lambda text: text.replace("lost_after = 4", "lost_after = 12") + scheduler)
        self.addCleanup(array.close)
        array.__enter__()
        router = array.network.add("narrow", f"{ROUTER}/24", f"{ROUTER6}/64")
        ends = ((f"{VISITOR}/24", "10.79.0.1/24"), (f"{VISITOR6}/64", "fd79::1/64"))
        array.network.add_behind(router, "visitor", *ends)
        for name in NODES:
            array.host(name).run("ip", "route", "add", "10.79.0.0/24", "via", ROUTER)
            array.host(name).run("ip", "route", "add", "fd79::/64", "via", ROUTER6)
        array.wait_ready()
        return array

    def answered(self, visitor: Host, octets: int, *arguments: str) -> set[str]:
        """The nodes that have answered, with success and so many octets, when all have or after sixty answers."""
        seen: set[str] = set()
        for _ in range(60):
            said = visitor.run("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", _SAYS, *arguments, check=False)
            status, _, node = said.partition(" by ")
            self.assertEqual(status, f"200 {octets}")
            seen.add(node)
            if seen == set(NODES):
                break
        return seen

    def narrow(self, plane: str) -> None:
        """Downloads through the narrow segment, then uploads in pieces."""
        array = self.array(plane)
        router, visitor = array.host("narrow"), array.host("visitor")
        router.run("ip", "link", "set", "to-visitor", "mtu", str(NARROW))
        for host in (VIP, f"[{VIP6}]"):
            self.assertEqual(self.answered(visitor, LARGE, f"http://{host}/large.bin"), set(NODES))
        for name in NODES:  # each worker was told, of its own packets
            for address in (VISITOR, VISITOR6):
                self.assertIn(f"mtu {NARROW}", array.host(name).run("ip", "route", "get", address), name)
        router.run("ip", "link", "set", "to-visitor", "mtu", "1500")
        self.in_pieces(array)

    def in_pieces(self, array: Array) -> None:
        """The router cuts every large segment: it may, and the way to the VIP is narrower."""
        visitor = array.host("visitor")
        array.host("narrow").run("ip", "route", "add", f"{VIP}/32", "dev", "eth0", "mtu", "lock", "1000")
        visitor.run("sysctl", "-qw", "net.ipv4.ip_no_pmtu_disc=1")
        upload = array.folder / "upload"
        upload.write_bytes(b"u" * 300_000)
        sent = ("-H", "Expect:", "--data-binary", f"@{upload}", f"http://{VIP}/order")
        self.assertEqual(self.answered(visitor, len("ordered from w1\n"), *sent), set(NODES))
        for name in NODES:
            self.assertGreater(_put_together(array.host(name)), 0, name)
        status = array.status(array.owner())
        assert status is not None
        self.assertEqual(status["scheduler"]["verdicts"]["dropped_lone_fragment"], 0)

    def test_tc(self) -> None:
        """By tc."""
        self.narrow("tc")

    def test_packet(self) -> None:
        """By the plane in Python."""
        self.narrow("packet")


_SAYS = "%{http_code} %{size_download} by %header{x-lbarray-node}"


def _put_together(host: Host) -> int:
    """Packets whose fragments the kernel has put together (``ReasmOKs``)."""
    names, values = (
        line.split()[1:] for line in host.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Ip: ")
    )
    return int(values[names.index("ReasmOKs")])
