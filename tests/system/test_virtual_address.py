"""Virtual addresses in every form, and what a node's own condition does to them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.namespaces import run
from lbarray.testbed.nodes import NODES, VIP, VIP6, Array, wait_for
from tests.system.test_array import need_namespaces

HERE = Path(__file__).resolve().parent.parent.parent
PAIR = {name: NODES[name] for name in ("a", "b")}


def router(array: Array, node: str, name: str = "main") -> dict[str, Any]:
    """How a node sees a virtual router; empty while it does not answer."""
    status = array.status(node) or {"failover": {"routers": {}}}
    found: dict[str, Any] = status["failover"]["routers"].get(name, {})
    return found


class ArrayCase(SynchronousTestCase):
    """An array for each test."""

    def start(self, *, ipv6: bool = False, nodes: dict[str, str] = PAIR, **changes: str) -> Array:
        """An array with these changes to its configuration: ``failover`` stands for lines of ``[failover]``."""
        need_namespaces()

        def edit(text: str) -> str:
            return text.replace("[failover]\n", "[failover]\n" + changes.get("failover", "")) + changes.get("more", "")

        array = Array(nodes=nodes, edit=edit, ipv6=ipv6).__enter__()
        self.addCleanup(array.close)
        return array

    def answer(self, array: Array, vip: str) -> str:
        """The node that answers a client's request at ``vip``; empty when none does."""
        host = f"[{vip}]" if ":" in vip else vip
        said = array.client.run(
            "curl", "-gsi", "-m", "2", "-H", "Host: shop.example.com", f"http://{host}/", check=False
        )
        fields = dict(line.lower().partition(": ")[::2] for line in said.splitlines() if ": " in line)
        return fields.get("x-lbarray-node", "").strip()


class VirtualMacTests(ArrayCase):
    """Both families, MAC addresses of the routers' own, nothing accepted but services, unicast."""

    def test_everything_on_its_own_interface(self) -> None:
        """Clients find the VIPs at the virtual MAC addresses, before and after the owner's death, and are served."""
        array = self.start(ipv6=True, failover="virtual_mac = true\naccept = false\n")
        array.wait_owner_of((VIP, VIP6), "a")
        for vip in (VIP, VIP6):
            wait_for(lambda vip=vip: self.answer(array, vip), f"an answer at {vip}", 10)  # type: ignore[misc]
        places = {vip: self.place(array, vip) for vip in (VIP, VIP6)}
        self.assertEqual(places, {VIP: "00:00:5e:00:01:33", VIP6: "00:00:5e:00:02:33"})
        # Nothing but services is let in.
        self.assertIn("1 received", array.client.run("ping", "-c1", "-W1", NODES["a"]))
        self.assertIn("0 received", array.client.run("ping", "-c1", "-W1", VIP, check=False))
        array.kill_node("a")
        array.wait_owner_of((VIP, VIP6), "b", 5)
        for vip in (VIP, VIP6):
            wait_for(lambda vip=vip: self.answer(array, vip) == "b", f"b to answer at {vip}", 5)  # type: ignore[misc]
        self.assertEqual({vip: self.place(array, vip) for vip in (VIP, VIP6)}, places)
        # What the killed node left is put right at its next start.
        links = array.host("a").run("ip", "-o", "link")
        self.assertIn("lbv4-51", links)
        array.start_node("a")
        array.wait_owner_of((VIP, VIP6), "a")
        self.assertIn("undone, left by a node that was killed: macvlan lbv4-51", array.log_of("a"))

    def place(self, array: Array, vip: str) -> str:
        """The MAC address that the client has for ``vip``."""
        words = array.client.run("ip", "neigh", "show", vip).split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""


class SpreadTests(ArrayCase):
    """Several virtual routers, without multicast."""

    def test_each_node_has_its_own(self) -> None:
        """VIPs of both families, two owners; when one dies the other has all, and each forwards to every worker."""
        second = "10.77.0.101"
        service = f'[services.second]\nvip = "{second}"\nport = 80\n'

        def edit(text: str) -> str:
            text = text.replace(f'vips = ["{VIP}/24"', f'vips = ["{VIP}/24", "{second}/24"')
            for name, address in PAIR.items():
                own6 = "fd77::" + address.rpartition(".")[2]
                text = text.replace(f"[array.nodes.{name}]\n", f'[array.nodes.{name}]\naddress6 = "{own6}"\n')
            return text.replace("[failover]\n", "[failover]\nspread = true\nunicast = true\n") + service

        need_namespaces()
        array = Array(nodes=PAIR, edit=edit, ipv6=True).__enter__()
        self.addCleanup(array.close)
        array.wait_owner_of((VIP, VIP6), "a")
        array.wait_owner_of((second,), "b")
        changes = router(array, "b", VIP6)["transitions"]
        for node in PAIR:  # no multicast passes from here on
            for rule in (
                "add table netdev quiet",
                'add chain netdev quiet in { type filter hook ingress device "eth0" priority -500; }',
                "add rule netdev quiet in ip daddr 224.0.0.18 drop",
                "add rule netdev quiet in ip6 daddr ff02::12 drop",
            ):
                array.host(node).run("nft", rule)
        for vip in (VIP, second, VIP6):
            found: set[str] = set()

            def both(vip: str = vip, found: set[str] = found) -> bool:
                found.add(self.answer(array, vip))
                return found >= {"a", "b"}

            wait_for(both, f"both nodes to answer at {vip}", 10)
        array.wait_owner_of((VIP, VIP6), "a")
        array.wait_owner_of((second,), "b")
        self.assertEqual(router(array, "b", VIP6)["transitions"], changes)
        array.kill_node("a")
        array.wait_owner_of((VIP, second, VIP6), "b", 5)
        for vip in (VIP, VIP6):
            wait_for(lambda vip=vip: self.answer(array, vip) == "b", f"b to answer at {vip}", 10)  # type: ignore[misc]


_NOISE = """
import os, random, socket, struct, sys, time
sys.path.insert(0, {here!r})
from lbarray.failover.packet import Advertisement, encode
from ipaddress import IPv4Address
source, group = IPv4Address({source!r}), IPv4Address("224.0.0.18")
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, source.packed)
def say(octets, ttl=255):
    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
    out.sendto(octets, (str(group), 0))
good = encode(Advertisement(51, 254, 10, (IPv4Address({vip!r}),)), source, group)
say(good, ttl=254)
say(b"\\x21" + good[1:])
say(good[:7])
say(good[:6] + b"xx" + good[8:])
say(encode(Advertisement(99, 254, 10, (IPv4Address({vip!r}),)), source, group))
say(good)
chance = random.Random(1)
for _ in range(1000):
    say(chance.randbytes(chance.randrange(1, 60)))
    time.sleep(0.0005)
"""


class ConditionTests(ArrayCase):
    """What a node knows of itself."""

    def test_cable_script_and_noise(self) -> None:
        """Bad packets, a failing script, a stolen packet program and a pulled cable: each does what it should, and no
        more."""
        need_namespaces()

        def edit(text: str) -> str:
            command = f'["/usr/bin/test", "-e", "{array.folder}/well"]'
            return text + f'[failover.scripts.well]\ncommand = {command}\ninterval = "100ms"\nweight = 60\n'

        array = Array(nodes=PAIR, edit=edit)
        (array.folder / "well").touch()
        array.__enter__()
        self.addCleanup(array.close)
        array.wait_owner_of((VIP,), "a")
        with self.subTest("noise"):
            self.noise(array)
        with self.subTest("script"):
            # The folder is shared: both nodes fail, and what b advertises is lower still.
            (array.folder / "well").unlink()
            wait_for(lambda: router(array, "a").get("priority") == 90, "the script to lower the priority", 5)
            self.assertIn("script well", router(array, "a")["failing"])
            array.wait_owner_of((VIP,), "a")
            (array.folder / "well").touch()
            wait_for(lambda: router(array, "a").get("priority") == 150, "the priority to be as before", 5)
        with self.subTest("plane"):
            a = array.host("a")
            self.assertIn("bpf", a.run("tc", "filter", "show", "dev", "eth0", "ingress"))
            a.run("tc", "filter", "del", "dev", "eth0", "ingress")
            wait_for(lambda: "bpf" in a.run("tc", "filter", "show", "dev", "eth0", "ingress"), "the program", 5)
            array.wait_owner_of((VIP,), "a")
        with self.subTest("cable"):
            array.network.link("a", False)
            # The switch cannot be asked through a pulled cable, so the node itself is.
            wait_for(lambda: router(array, "a").get("state") == "unfit", "a to be unfit", 5)
            self.assertIn("no carrier", router(array, "a")["failing"]["carrier"])
            array.wait_owner_of((VIP,), "b", 5)
            array.network.link("a", True)
            array.wait_owner_of((VIP,), "a", 10)

    def noise(self, array: Array) -> None:
        """A thousand bad packets in a second are counted by reason, and the owner stays the owner."""
        before = router(array, "b")
        code = _NOISE.format(here=str(HERE), source="10.77.0.199", vip=VIP)
        array.client.run(sys.executable, "-c", code, timeout_s=20)
        status = array.status("b")
        assert status is not None
        refused = status["counters"]["vrrp_refused"]
        self.assertLessEqual({"ttl", "version", "truncated", "checksum", "unsigned"}, set(refused))
        self.assertGreaterEqual(sum(refused.values()), 1000)
        after = router(array, "b")
        self.assertEqual((after["state"], after["owner"]), ("backup", NODES["a"]))
        self.assertEqual(after["transitions"], before["transitions"])
        self.assertEqual(array.owners(), ["a"])


class StrangerTests(ArrayCase):
    """A machine that has the VIP and speaks no VRRP."""

    def test_reported_and_waited_for(self) -> None:
        """The node does not take the VIP, and says which MAC address has it; when it is free the node takes it."""
        array = self.start(nodes={"a": NODES["a"]})
        array.wait_owner_of((VIP,), "a")
        array.kill_node("a")
        wait_for(lambda: not array.owners(), "the kernel to take the VIP from the killed node", 10)
        stranger = array.host("w1")
        run(["ip", "-n", stranger.namespace, "addr", "add", f"{VIP}/24", "dev", "eth0"])
        array.start_node("a")
        wait_for(lambda: "duplicate address" in router(array, "a").get("failing", {}), "the stranger to be seen", 10)
        self.assertIn(stranger.mac(), router(array, "a")["failing"]["duplicate address"])
        self.assertEqual(array.owners(), [])
        run(["ip", "-n", stranger.namespace, "addr", "del", f"{VIP}/24", "dev", "eth0"])
        array.wait_owner_of((VIP,), "a", 20)


class HandoverTests(ArrayCase):
    """``lbarray handover`` under load."""

    def test_no_client_notices(self) -> None:
        """To a named node and back to the next in line, while clients ask: every request is answered."""
        array = self.start(nodes=NODES)
        array.wait_ready()
        clients = array.start_clients(array.load(seconds=6.0, threads=8, pause_s=0.04))
        for wanted in ("c", "b"):
            time.sleep(1.0)
            said = array.command("b", "handover", wanted)
            self.assertIn(f"moved to {wanted}", said)
            self.assertEqual(array.owners(), [wanted])
        time.sleep(0.5)
        self.assertIn("moved to a", array.command("c", "handover"))
        answers = clients.answers(timeout_s=20)
        self.assertGreater(len(answers), 500)
        self.assertEqual([answer for answer in answers if not answer.good], [])
        self.assertIn("has it already", array.command("a", "handover", "a"))
        self.assertIn("is no node of this array", array.command("a", "handover", "x"))
