"""Each packet plane carries the traffic of a real array."""

from __future__ import annotations

import json
import signal
import sys

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.namespaces import Network
from lbarray.testbed.nodes import NODES, Array, wait_for
from tests.system.test_array import need_namespaces


class ChosenPlaneTests(SynchronousTestCase):
    """What ``auto`` takes, by the interface's driver, and says about it."""

    def setUp(self) -> None:
        need_namespaces()
        network = Network()
        self.addCleanup(network.close)
        network.__enter__()
        self.host = network.add("a", "192.0.2.1/24")

    def chosen(self, interface: str, plane: str = "auto") -> tuple[str, str, str]:
        """The plane, the line in the log, and the frame that came back from it, where there is a wire."""
        told = json.loads(self.host.run(sys.executable, "-m", "tests.system.choosing", interface, plane))
        (said,) = told["said"]
        return told["plane"], said, told["came"]

    def test_driver_with_xdp(self) -> None:
        """A driver that takes the program runs it, and sends what is scheduled back by the wire it came from."""
        plane, said, came = self.chosen("tap0")
        self.assertEqual(plane, "xdp")
        self.assertIn("in the driver of tap0, tun", said)
        self.assertEqual(came[:12], "020000000002")
        self.assertEqual(came[24:28], "0800")

    def test_driver_that_loses(self) -> None:
        """One that would lose what XDP sends back is not tried; who names the plane is believed."""
        plane, said, _ = self.chosen("eth0")
        self.assertEqual(plane, "tc")
        self.assertIn("not xdp: veth loses the frames", said)
        self.assertEqual(self.chosen("eth0", "xdp")[0], "xdp")

    def test_driver_without(self) -> None:
        """The kernel's own words say why a driver does not take it."""
        self.host.run("ip", "link", "add", "br0", "type", "bridge")
        plane, said, _ = self.chosen("br0")
        self.assertEqual(plane, "tc")
        self.assertIn("does not support XDP in native mode", said)


class PlaneTests(SynchronousTestCase):
    """Small requests, large answers and uploads, through the plane that the configuration names."""

    def setUp(self) -> None:
        need_namespaces()

    def carry(self, plane: str) -> Array:
        """All is answered, by every node, directly; the array for a closer look."""
        array = Array(edit=lambda text: text + f'\n[scheduler]\nplane = "{plane}"\nfeedback = false\nslow_start = 0\n')
        self.addCleanup(array.close)
        array.__enter__()
        owner = array.wait_ready()
        seen = set()
        for load in (
            array.load(count=90, threads=3),
            array.load(count=30, threads=3, tls=True),
            array.load(count=12, path="/large.bin", threads=2),
        ):
            answers = array.ask(load)
            self.assertEqual([answer for answer in answers if not answer.good], [])
            seen |= {answer.node for answer in answers}
        self.assertEqual(seen, set(NODES))
        self.assertEqual(array.responses_through(owner), 0)
        status = array.status(owner)
        assert status is not None
        self.assertEqual(status["scheduler"]["plane"], plane)
        for name in NODES:
            self.assertGreater(status["scheduler"]["workers"][name]["packets"], 0)
        return array

    def test_packet(self) -> None:
        """Python, where eBPF is not allowed: it says how slow it is."""
        array = self.carry("packet")
        self.assertIn("packets per second on this machine", array.log_of("a"))
        # Workers, too, see packets before their kernel does, which would reset what another worker holds.
        tables = {name: array.host(name).run("nft", "list", "tables") for name in NODES}
        self.assertEqual([name for name, listed in tables.items() if "lbarray_packet" in listed], list(NODES))

    def test_generic_xdp(self) -> None:
        """eBPF before the kernel's own receive path: a capture there sees what it forwards all the same."""
        array = self.carry("xdp-generic")
        pcap = array.folder / "out.pcap"
        command = [sys.executable, "-m", "lbarray", "capture", str(array.config), str(pcap), "--node", "a"]
        with (array.folder / "capture.log").open("wb") as log:
            capture = array.host("a").start(*command, "--seconds", "30", log=log)
        wait_for(lambda: (pcap.exists() and pcap.stat().st_size >= 24) or None, "the capture to begin")
        answers = array.ask(array.load(count=30, threads=3))
        self.assertEqual([answer for answer in answers if not answer.good], [])
        capture.send_signal(signal.SIGINT)
        self.assertEqual(capture.wait(10), 0, (array.folder / "capture.log").read_text())
        own = bytes.fromhex(array.host("a").mac().replace(":", ""))
        for name in {answer.node for answer in answers} - {"a"}:
            self.assertIn(bytes.fromhex(array.host(name).mac().replace(":", "")) + own, pcap.read_bytes())
        self.assertNotIn("packets before this capture", (array.folder / "capture.log").read_text())
