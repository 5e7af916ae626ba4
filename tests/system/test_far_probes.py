"""A worker beyond a router is proved through the tunnel of its clients' packets, and what is wrong there is named."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import NODES, VIP, Array, wait_for
from tests.system.test_array import need_namespaces


def _edit(text: str) -> str:
    scheduler = '\n[scheduler]\nprobe_interval = "200ms"\nslow_start = 0\nfeedback = false\n'
    return text.replace("lost_after = 4", "lost_after = 12") + scheduler


class FarProbeTests(SynchronousTestCase):
    """Three nodes in one segment, and d beyond a router, whose heartbeats come through all the time."""

    def setUp(self) -> None:
        need_namespaces()
        self.it = Array(nodes={**NODES, "d": "10.78.0.4"}, far=["d"], edit=_edit)
        self.addCleanup(self.it.close)
        self.it.__enter__()
        self.it.wait_ready()
        self.router = self.it.host("router")

    def status(self) -> dict[str, Any]:
        return wait_for(lambda: self.it.status("a"), "the status of a")

    def rows(self) -> int:
        rows: int = self.status()["scheduler"]["workers"]["d"]["rows"]
        return rows

    def loses(self, what: str) -> None:
        """The router loses these packets: d has no rows meanwhile, and the log says why in one line."""
        before = self.it.log_of("a").count("worker d gets no new connections")
        path = self.it.folder / "wrong.nft"
        path.write_text(f"table inet wrong {{\nchain f {{\ntype filter hook forward priority 0\n{what} drop\n}}\n}}\n")
        self.router.run("nft", "-f", str(path))
        wait_for(lambda: not self.rows() or None, f"d without rows, for {what}", 10.0, 0.1)
        members = self.status()["membership"]["members"]
        self.assertTrue(members["d"]["accepting"])
        said = [line for line in self.it.log_of("a").splitlines() if "worker d gets no new connections" in line]
        self.assertEqual(len(said), before + 1)
        self.assertIn(f"{VIP}:80/tcp: no answer", said[-1])
        answers = self.it.ask(self.it.load(count=30, threads=2))
        self.assertEqual([answer for answer in answers if not answer.good], [])
        self.router.run("nft", "delete", "table", "inet", "wrong")
        wait_for(lambda: self.rows() or None, "d with rows", 10.0, 0.1)

    def test_ways(self) -> None:
        """Tunnels that are filtered; answers from the VIP that a router takes for forged; a link that is too narrow for
        what is in a tunnel."""
        self.loses("udp dport 6080")
        self.loses(f"ip saddr {VIP}")
        self.router.run("ip", "link", "set", "to-d", "mtu", "1450")
        wait_for(lambda: self.status()["probes"]["only_small_packets"] == ["d"] or None, "the narrow link", 15.0, 0.1)
        self.assertIn("worker d answers small packets and not one of 1500 octets", self.it.log_of("a"))
        self.assertGreater(self.rows(), 0)
