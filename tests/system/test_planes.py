"""Each packet plane carries the traffic of a real array."""

from __future__ import annotations

import signal
import sys

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import NODES, Array, wait_for
from tests.system.test_array import need_namespaces


class PlaneTests(SynchronousTestCase):
    """Small requests, large answers and uploads, through the plane that the configuration names."""

    def setUp(self) -> None:
        need_namespaces()

    def carry(self, plane: str) -> Array:
        """All is answered, by every node, directly; the array for a closer look."""
        array = Array(edit=lambda text: text + f'\n[scheduler]\nplane = "{plane}"\nfeedback = false\n')
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
