"""A worker beyond a router: the same promises through tunnels as within one segment."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import NODES, VIP, VIP6, Array, wait_for
from tests.system.test_array import need_namespaces

WITH_FAR = {**NODES, "d": "10.78.0.4"}
CONNECTIONS = 600


class RoutedTests(SynchronousTestCase):
    """Three nodes in the VIP's segment, and d behind a router."""

    def setUp(self) -> None:
        need_namespaces()

    def array(self, tunnel: str, plane: str, *, mss: int = 0, ipv6: bool = False) -> Array:
        def edit(text: str) -> str:
            if mss:
                text = text.replace("expose = true", f"expose = true\nmss = {mss}")
            far = f'address = "{WITH_FAR["d"]}"\n'
            text = text.replace(far, far + f'tunnel = "{tunnel}"\n').replace("lost_after = 4", "lost_after = 12")
            return text + f'\n[scheduler]\nplane = "{plane}"\nfeedback = false\nslow_start = 0\n'

        array = Array(nodes=WITH_FAR, far=["d"], edit=edit, ipv6=ipv6)
        self.addCleanup(array.close)
        array.__enter__()
        array.wait_ready()
        return array

    def carried(self, array: Array) -> None:
        """Small and large answers and uploads, by every node, each directly."""
        seen = set()
        for load in (
            array.load(count=80, threads=2),
            array.load(count=40, threads=2, tls=True),
            array.load(count=20, path="/large.bin", threads=2),
        ):
            answers = array.ask(load)
            self.assertEqual([answer for answer in answers if not answer.good], [])
            seen |= {answer.node for answer in answers}
        self.assertEqual(seen, set(WITH_FAR))
        self.assertEqual(array.responses_through("a"), 0)
        self.uploaded(array)
        status = array.status("a")
        assert status is not None
        self.assertEqual(status["scheduler"]["verdicts"]["dropped_too_big"], 0)
        # Probes go the same way, small and full-sized.
        self.assertEqual(set(status["probes"]["workers"]["d"].values()), {"able"})
        self.assertEqual(status["probes"]["only_small_packets"], [])
        # The back end answers before it has read all; what came until then was in full segments.
        self.assertGreater(status["scheduler"]["workers"]["d"]["octets"], 10_000)

    def uploaded(self, array: Array, vip: str = VIP) -> None:
        """Segments as large as the client may send get through the tunnel."""
        upload = array.folder / "upload"
        upload.write_bytes(b"u" * 300_000)
        for _ in range(100):
            said = array.client.run(
                *("curl", "-s", "-m", "5", "-H", "Expect:", "--data-binary", f"@{upload}"),
                *("-o", "/dev/null", "-w", "%{http_code} %header{x-lbarray-node}", f"http://{vip}/order"),
            )
            self.assertEqual(said[:3], "200")
            if said[4:] == "d":
                return
        self.fail("d had none of a hundred uploads")

    def learns_what_fits(self, plane: str) -> None:
        """By either version of IP. The listeners announce segments that do not fit, as an operator may have them do."""
        array = self.array("gue", plane, mss=1460, ipv6=True)
        if plane.startswith("xdp"):
            self.send_as_on_a_wire(array)

        def verdicts() -> dict[str, int]:
            status = array.status("a")
            assert status is not None
            counted: dict[str, int] = status["scheduler"]["verdicts"]
            return counted

        for vip, host in ((VIP, VIP), (VIP6, f"[{VIP6}]")):
            before = verdicts()

            def told(host: str = host, before: dict[str, int] = before) -> bool:
                self.uploaded(array, host)
                return verdicts()["answered_too_big"] > before["answered_too_big"]

            self.assertNotIn("mtu", array.client.run("ip", "route", "get", vip))
            # The back end may answer before there was a large segment.
            wait_for(told, f"an upload of large segments to {vip}", 20)
            self.assertGreater(verdicts()["dropped_too_big"], before["dropped_too_big"])
            self.assertIn("mtu 1464", array.client.run("ip", "route", "get", vip))
            # Who knows it sends nothing that is too large, and is answered directly.
            quiet = verdicts()
            self.uploaded(array, host)
            self.assertEqual(verdicts()["dropped_too_big"], quiet["dropped_too_big"])
        self.assertEqual(array.responses_through("a"), 0)

    def test_too_big(self) -> None:
        """A client whose packets do not fit into the tunnel is told so by ICMP, and sends smaller ones."""
        self.learns_what_fits("tc")

    def test_too_big_packet(self) -> None:
        """The same by the plane in Python."""
        self.learns_what_fits("packet")

    def test_too_big_generic_xdp(self) -> None:
        """The same by generic XDP."""
        self.learns_what_fits("xdp-generic")

    def test_packet(self) -> None:
        """By GUE, put in and taken out by the plane in Python, with a second chance across the router."""
        array = self.array("gue", "packet")
        self.carried(array)
        self.moved(array)

    def test_gue(self) -> None:
        """By GUE, with a second chance across the router when d is drained and the scheduler dies."""
        array = self.array("gue", "tc")
        self.carried(array)
        self.moved(array)

    def moved(self, array: Array) -> None:
        """Connections outlive a change of rows, and the scheduler."""
        held = array.hold_connections(CONNECTIONS)
        self.addCleanup(held.close)
        first = held.ask()
        self.assertEqual(first.broken, {})
        self.assertIn("d", first.nodes)
        array.drain("d")

        def rows(asked: str, wanted: set[str]) -> bool:
            status = array.status(asked)
            workers = status["scheduler"]["workers"] if status else {}
            return {name for name, worker in workers.items() if worker["rows"]} == wanted

        wait_for(lambda: rows("a", {"a", "b", "c"}), "the rows without d", 10, 0.1)
        self.assertEqual(held.ask().broken, {})
        array.kill_node("a")
        wait_for(lambda: array.owners() == ["b"], "a successor", 10)
        wait_for(lambda: rows("b", {"b", "c"}), "the rows without a", 10, 0.1)
        self.assertEqual(held.ask().broken_of({"b", "c", "d"}), {})
        for name in ("b", "c", "d"):
            status = array.status(name) or {}
            self.assertEqual(status["scheduler"]["verdicts"]["dropped_no_room"], 0)

    def test_ipip(self) -> None:
        """By IPIP, as generic XDP."""
        array = self.array("ipip", "xdp-generic")
        self.send_as_on_a_wire(array)
        self.carried(array)

    def send_as_on_a_wire(self, array: Array) -> None:
        """XDP meets packets as they were on the wire: here nobody's network card would take larger ones apart."""
        array.client.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
