"""Draining, probing and direct return, with real daemons in network namespaces."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import NODES, VIP, VIP6, Array, wait_for
from tests.system.sharing import shared
from tests.system.test_array import need_namespaces

#: Opens connections until one is served by the node that is wanted, then asks on it until a file appears.
_STAY = f"""
import http.client, pathlib, sys, time
wanted, end = sys.argv[1], pathlib.Path(sys.argv[2])
for _ in range(200):
    held = http.client.HTTPConnection("{VIP}", 80, timeout=5)
    held.request("GET", "/whoami.html"); answer = held.getresponse(); answer.read()
    if answer.getheader("X-Lbarray-Node") == wanted: break
    held.close()
print("held", flush=True)
sock = held.sock
while not end.exists():
    time.sleep(0.1)
    held.request("GET", "/whoami.html"); answer = held.getresponse(); answer.read()
    assert held.sock is sock and answer.getheader("X-Lbarray-Node") == wanted
    print("answered", flush=True)
"""


def probing_array() -> Array:
    """An array that several tests look at."""
    scheduler = '\n[scheduler]\nprobe_interval = "200ms"\nslow_start = 0\n'
    array = Array(edit=lambda text: text + scheduler, ipv6=True).__enter__()
    array.wait_ready()
    return array


class SchedulingTests(SynchronousTestCase):
    """Three nodes; node a owns the VIP."""

    def setUp(self) -> None:
        need_namespaces()
        self.it = shared(probing_array)
        # What a test did to c may have taken its rows for a moment.
        self.wait(lambda: self.rows()["c"] > 0, "c with rows")

    def status(self, name: str = "a") -> dict[str, Any]:
        return wait_for(lambda: self.it.status(name), f"the status of {name}")

    def rows(self) -> dict[str, int]:
        return {name: worker["rows"] for name, worker in self.status()["scheduler"]["workers"].items()}

    def wait(self, look: Callable[[], object], what: str) -> None:
        wait_for(lambda: look() or None, what, timeout_s=10.0, pause_s=0.05)

    def complaints(self) -> list[str]:
        """What the scheduler has said of c so far."""
        return [line for line in self.it.log_of("a").splitlines() if "worker c gets no new connections" in line]

    def lbarray(self, name: str, *arguments: str) -> str:
        """A command on the machine of a node."""
        socket = str(self.it.folder / "state" / f"{name}.sock")
        return self.it.host(name).run(sys.executable, "-m", "lbarray", *arguments, "--socket", socket)

    def test_packet_filter(self) -> None:
        """A worker that clients' packets do not reach gets no rows, and the scheduler says so in one line, though the
        worker finds nothing wrong with itself; when they reach it again it has its rows again."""
        self.filtered(f"ip daddr {VIP}", f"{VIP}:80/tcp: no answer")

    def test_packet_filter_for_ipv6(self) -> None:
        """The same where only the IPv6 VIP's packets are lost: it is probed on the way of its own packets."""
        found = self.status()["probes"]["workers"]["c"]
        self.assertEqual(found[f"[{VIP6}]:80/tcp"], "able")
        self.filtered(f"ip6 daddr {VIP6}", f"[{VIP6}]:80/tcp: no answer")

    def filtered(self, what: str, why: str) -> None:
        worker, before = self.it.host("c"), len(self.complaints())
        filter_ = f"table inet wrong {{ chain in {{ type filter hook input priority 0; iif eth0 {what} drop\n}}\n}}\n"
        (self.it.folder / "wrong.nft").write_text(filter_)
        worker.run("nft", "-f", str(self.it.folder / "wrong.nft"))
        self.wait(lambda: self.rows()["c"] == 0, "c without rows")
        self.assertTrue(self.status("c")["membership"]["members"]["c"]["accepting"])
        said = self.complaints()[before:]
        self.assertEqual(len(said), 1, said)
        self.assertIn(why, said[0])
        self.assertEqual(self.status("b")["scheduler"]["workers"]["c"]["rows"], 0)
        worker.run("nft", "delete", "table", "inet", "wrong")
        self.wait(lambda: self.rows()["c"] > 0, "c with rows")

    def test_probes_leave_nothing(self) -> None:
        """Workers accept no connection for a probe: it ends before anything is accepted."""
        sent = self.status()["counters"]["probes_sent"]
        self.wait(lambda: self.status()["counters"]["probes_sent"] > sent + 20, "twenty probes")
        held = self.it.host("c").run("ss", "-Htan", "dst", NODES["a"]).splitlines()
        self.assertEqual([line for line in held if re.search(r":6[1-5]\d{3}\b", line) and "SYN-RECV" not in line], [])

    def test_direct_return_is_repaired(self) -> None:
        """Whoever takes away what direct return needs has it put back at once, and named."""
        worker = self.it.host("c")
        wrong = {
            f"{VIP} is missing on lo": ("ip", "addr", "del", f"{VIP}/32", "dev", "lo"),
            f"{VIP6} is missing on lo": ("ip", "addr", "del", f"{VIP6}/128", "dev", "lo"),
            "arp_ignore is 0, has to be 1": ("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"),
            "arp_announce is 0, has to be 2": ("sysctl", "-qw", "net.ipv4.conf.all.arp_announce=0"),
            "rp_filter is 1, has to be 2": ("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1"),
            # What takes packets out of tunnels, and gives them their second chance.
            "the packet program was taken away from eth0": ("tc", "qdisc", "del", "dev", "eth0", "clsact"),
        }
        for command in wrong.values():
            worker.run(*command)
        self.wait(lambda: all(fault in self.it.log_of("c") for fault in wrong), "everything to be named")
        held = worker.run("ip", "-o", "addr", "show", "dev", "lo")
        self.assertIn(f"{VIP}/32", held)
        self.assertIn(f"{VIP6}/128", held)
        parameters = [f"net.ipv4.conf.{name}" for name in ("all.arp_ignore", "all.arp_announce", "eth0.rp_filter")]
        self.assertEqual(worker.run("sysctl", "-n", *parameters).split(), ["1", "2", "2"])
        self.assertIn("schedule_tc", worker.run("tc", "filter", "show", "dev", "eth0", "ingress"))
        status = self.status("c")["direct_return"]
        self.assertEqual((status["trouble"], len(status["repaired"]) >= 5), ("", True))

    def test_path_that_loses_what_is_large(self) -> None:
        """A way on which only small packets come through is named, with where to look, and so is its end."""
        self.it.network.limit("c", 1000)
        try:
            self.wait(lambda: self.status()["probes"]["only_small_packets"] == ["c"], "c with small packets only")
            self.assertIn("worker c answers small packets and not one of 1500 octets", self.it.log_of("a"))
            self.assertGreater(self.rows()["c"], 0)
        finally:
            self.it.network.limit("c", 1500)
        self.wait(lambda: not self.status()["probes"]["only_small_packets"], "large packets to come through")
        self.assertIn("worker c answers large packets again", self.it.log_of("a"))

    def test_where_and_flows(self) -> None:
        """Which worker a client's port maps to is told before it comes, is the one that answers, and is listed with the
        connection; a capture of the scheduler shows its packets on their way there."""
        source, pcap = "10.77.0.205", self.it.folder / "out.pcap"
        command = [sys.executable, "-m", "lbarray", "capture", str(self.it.config), str(pcap), "--node", "a"]
        with (self.it.folder / "capture.log").open("wb") as log:
            capture = self.it.host("a").start(*command, "--seconds", "30", log=log)
        self.wait(lambda: pcap.exists() and pcap.stat().st_size >= 24, "the capture to begin")
        answered = {}
        for port in range(20000, 20012):
            asked = json.loads(self.lbarray("b", "where", source, "--port", str(port), "--json"))
            (place,) = (each for each in asked["services"] if each["service"] == f"{VIP}:80/tcp")
            head = self.it.client.run(
                *("curl", "-s", "-m", "5", "-D", "-", "-o", "/dev/null", "--interface", source),
                *("--local-port", str(port), f"http://{VIP}/small"),
            )
            found = re.search(r"(?im)^x-lbarray-node: (\w+)", head)
            answered[port] = found[1] if found else ""
            # The second one where it is less loaded.
            self.assertIn(answered[port], {place["worker"], place["alternative"]} - {""})
        self.assertGreater(len(set(answered.values())), 1)
        listed = json.loads(self.lbarray("a", "flows", "--client", source, "--json"))["flows"]
        plain = {flow["port"]: flow["worker"] for flow in listed if flow["service"] == f"{VIP}:80/tcp"}
        self.assertEqual({port: plain.get(port) for port in answered}, answered)
        self.assertIn("no such connection", self.lbarray("a", "flows", "--client", "192.0.2.77"))
        capture.send_signal(signal.SIGINT)
        self.assertEqual(capture.wait(10), 0)
        data = pcap.read_bytes()
        for name in set(answered.values()) - {"a"}:
            sent = bytes.fromhex(self.it.host(name).mac().replace(":", ""))
            sent += bytes.fromhex(self.it.host("a").mac().replace(":", ""))
            self.assertIn(sent, data)

    def test_draining(self) -> None:
        """A node drained from another one gets no new connection, keeps those it has, and is empty when they end."""
        path, end = self.it.folder / "held.log", self.it.folder / "end"
        with path.open("wb") as out:
            held = self.it.client.start(sys.executable, "-c", _STAY, "c", str(end), log=out)
        self.wait(lambda: "held" in path.read_text(), "a connection to c")
        self.assertIn("node c takes no new clients", self.lbarray("b", "drain", "c"))
        self.wait(lambda: self.rows()["c"] == 0, "c without rows")
        answers = self.it.ask(self.it.load(count=60))
        self.assertEqual([answer for answer in answers if not answer.good], [])
        self.assertEqual({answer.node for answer in answers}, set(NODES) - {"c"})
        answered = path.read_text().count("answered")
        self.wait(lambda: path.read_text().count("answered") > answered + 3, "the held connection to be answered")
        self.assertIn("node c: 1 connections left", self.ask_draining())
        end.touch()
        self.assertEqual(held.wait(5), 0, path.read_text()[-500:])
        self.wait(lambda: "node c is empty" in self.ask_draining(), "c to be empty")
        self.wait(lambda: "node c is empty: it can be stopped" in self.it.log_of("c"), "c to say so")
        self.assertIn("node c takes new clients", self.lbarray("a", "undrain", "c"))
        self.wait(lambda: self.rows()["c"] > 0, "c with rows")

    def ask_draining(self) -> str:
        """What is left, as any node knows it."""
        found = json.loads(self.it.host("b").run("curl", "-s", "http://127.0.0.1:9080/queries/draining"))
        return str(found["said"])
