"""Many schedulers at once: three nodes announce one VIP to a router that spreads the packets over them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.namespaces import Host
from lbarray.testbed.nodes import NODES, VIP, VIP6, Array, wait_for
from tests.system.test_array import need_namespaces

ROUTER, FAR_ROUTER, CLIENT, FAR = "10.77.0.254", "10.99.0.1", "10.99.0.2", "10.99.0.0/24"
ROUTER6, FAR_ROUTER6, CLIENT6, FAR6 = "fd77::254", "fd99::1", "fd99::2", "fd99::/64"
NODES6 = {name: f"fd77::{address.rpartition('.')[2]}" for name, address in NODES.items()}

_NODE_BIRD = """
router id {address};
protocol device {{ }}
protocol direct vips {{ ipv4; ipv6; interface "lbarray"; }}
protocol bgp uplink {{
  local {address} as 65001; neighbor {router} as 65000; hold time 9;
  ipv4 {{ import none; export where proto = "vips"; next hop self; }};
}}
"""
_NODE_BIRD6 = """
protocol bgp uplink6 {{
  local {address} as 65001; neighbor {router} as 65000; hold time 9;
  ipv6 {{ import none; export where proto = "vips"; next hop self; }};
}}
"""
_ROUTER_BIRD = """
router id {router};
protocol device {{ }}
protocol kernel {{ ipv4 {{ export all; }}; merge paths on limit 16; }}
protocol kernel {{ ipv6 {{ export where source = RTS_BGP; }}; merge paths on limit 16; }}
{sessions}
"""
_SESSION = """
protocol bgp {name} {{
  local {router} as 65000; neighbor {address} as 65001; hold time 9;
  {version} {{ import all; export none; }};
}}
"""

#: Holds connections that ask again and again, until a file appears; then says which workers' broke.
_HOLD = f"""
import http.client, json, pathlib, sys, threading, time
end, lock, found = pathlib.Path(sys.argv[1]), threading.Lock(), []
def hold():
    worker, answers, broken = "", 0, ""
    try:
        held = http.client.HTTPConnection("{VIP}", 80, timeout=5)
        held.auto_open = 1
        held.connect()
        held.auto_open = 0
        while not end.exists():
            held.request("GET", "/whoami.html")
            answer = held.getresponse(); answer.read()
            worker = answer.getheader("X-Lbarray-Node"); answers += 1
            with lock: began[threading.get_ident()] = worker
            time.sleep(0.05)
    except Exception as error:
        broken = repr(error)
    with lock: found.append([worker, answers, broken])
began = {{}}
threads = [threading.Thread(target=hold) for _ in range(int(sys.argv[2]))]
for thread in threads: thread.start()
while len(began) < len(threads): time.sleep(0.01)
print("held", flush=True)
for thread in threads: thread.join()
print(json.dumps(found), flush=True)
"""


class RouteTestCase(SynchronousTestCase):
    """Nodes with BIRD beside them, a router with BIRD and equal-cost multipath, a client behind it."""

    #: There is an IPv6 VIP, too, and a session for it.
    ipv6 = False

    def setUp(self) -> None:
        need_namespaces()
        self.it = Array(edit=self.edit, ipv6=self.ipv6)
        self.addCleanup(self.it.close)
        self.it.__enter__()
        network = self.it.network
        more = (f"{ROUTER6}/64", f"{FAR_ROUTER6}/64") if self.ipv6 else ()
        self.router = network.add("router", f"{ROUTER}/24", f"{FAR_ROUTER}/24", *more)
        # One interface, two networks: the router must not tell anybody of the shorter way.
        quiet = ["send_redirects=0", "accept_redirects=0"]
        self.router.run(
            "sysctl", "-qw", *(f"net.ipv4.conf.{which}.{each}" for which in ("all", "eth0") for each in quiet)
        )
        self.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1")
        self.far = network.add("far", f"{CLIENT}/24")
        self.far.run("ip", "route", "add", "default", "via", FAR_ROUTER)
        sessions = ""
        for name, address in NODES.items():
            self.it.host(name).run("ip", "route", "add", FAR, "via", ROUTER)
            sessions += _SESSION.format(name=name, router=ROUTER, address=address, version="ipv4")
            config = _NODE_BIRD.format(address=address, router=ROUTER)
            if self.ipv6:
                self.it.host(name).run("ip", "route", "add", FAR6, "via", ROUTER6)
                config += _NODE_BIRD6.format(address=NODES6[name], router=ROUTER6)
                sessions += _SESSION.format(name=f"{name}6", router=ROUTER6, address=NODES6[name], version="ipv6")
            self.bird(self.it.host(name), config)
        self.bird(self.router, _ROUTER_BIRD.format(router=ROUTER, sessions=sessions))
        self.wait_paths(set(NODES.values()))
        wait_for(self.all_work, "rows for every worker at every scheduler", 20.0, 0.1)

    def all_work(self) -> bool:
        """Every node serves, as every scheduler knows."""
        found = [(self.it.status(name) or {}).get("scheduler", {}).get("workers", {}) for name in NODES]
        return all(len(workers) == len(NODES) and all(w["rows"] for w in workers.values()) for workers in found)

    @staticmethod
    def edit(text: str) -> str:
        text = text.replace('[failover]\ninterval = "100ms"', '[failover]\nmode = "bgp"')
        # A busy machine may keep a node waiting for half a second: it must not count as dead, and lose its clients.
        text = text.replace("lost_after = 4", "lost_after = 12")
        return text + '\n[scheduler]\nprobe_interval = "200ms"\nslow_start = 0\n'

    def bird(self, host: Host, config: str) -> None:
        folder = Path(self.it.folder)
        (folder / f"{host.name}.bird").write_text(config)
        with (folder / f"{host.name}.bird.log").open("wb") as log:
            command = ["bird", "-f", "-c", str(folder / f"{host.name}.bird"), "-s", str(folder / f"{host.name}.ctl")]
            host.start(*command, log=log)

    def paths(self, vip: str) -> set[str]:
        """Where the router sends a VIP's packets."""
        version = "-6" if ":" in vip else "-4"
        routes = json.loads(self.router.run("ip", "-j", version, "route", "show", vip) or "[]")
        return {hop["gateway"] for route in routes for hop in route.get("nexthops", [route])}

    def wait_paths(self, wanted: set[str], vip: str = VIP) -> None:
        wait_for(lambda: self.paths(vip) == wanted or None, f"paths {sorted(wanted)} to {vip}", 20.0, 0.05)

    def status(self, name: str) -> dict[str, Any]:
        return wait_for(lambda: self.it.status(name), f"{name} to answer")

    def drain(self, name: str) -> None:
        self.it.host(name).run(
            sys.executable, "-m", "lbarray", "drain", "--socket", str(self.it.folder / "state" / f"{name}.sock")
        )


class RouteTests(RouteTestCase):
    """The IPv4 VIP."""

    def hold(self, count: int) -> tuple[Any, Path, Path]:
        out, end = self.it.folder / f"held-{count}.log", self.it.folder / f"end-{count}"
        with out.open("wb") as log:
            process = self.far.start(sys.executable, "-c", _HOLD, str(end), str(count), log=log)
        wait_for(lambda: "held" in out.read_text() or None, "connections", 20.0)
        return process, out, end

    def broken(self, held: tuple[Any, Path, Path], seconds: float) -> list[list[Any]]:
        """What became of each connection after some more time: worker, answers, what broke it."""
        process, out, end = held
        time.sleep(seconds)
        end.touch()
        process.wait(15)
        found: list[list[Any]] = json.loads(out.read_text().splitlines()[-1])
        return found

    def test_one_of_three_dies(self) -> None:
        """All three schedule; when one draws its route back, and when one dies with all that runs on it, no
        connection that another worker holds is broken, and new ones are served."""
        for name in NODES:
            status = self.status(name)
            self.assertEqual(status["routes"]["announced"], [VIP])
        held = self.hold(60)
        # Every scheduler had some of these: the router spreads them.
        for name in NODES:
            status = self.status(name)
            forwarded = sum(worker["packets"] for worker in status["scheduler"]["workers"].values())
            self.assertGreater(forwarded, 50, name)
        self.drain("b")
        self.wait_paths({NODES["a"], NODES["c"]})
        time.sleep(1.0)
        self.it.host("c").kill()
        self.wait_paths({NODES["a"]})
        found = self.broken(held, 2.0)
        workers = {worker for worker, _, _ in found}
        self.assertEqual(workers, set(NODES))
        survivors = [entry for entry in found if entry[0] != "c"]
        self.assertEqual([entry for entry in survivors if entry[2]], [])
        self.assertTrue(all(answers > 20 for _, answers, _ in survivors), survivors)
        answers = self.broken(self.hold(20), 0.5)
        self.assertEqual([entry for entry in answers if entry[2]], [])

    def test_only_the_node_dies(self) -> None:
        """When the node is killed and the routing daemon lives, the route goes all the same, within its lifetime; and
        an orderly stop withdraws it at once."""
        held = self.hold(30)
        for pid in self.it.host("c").pids():
            if b"twistd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        self.wait_paths({NODES["a"], NODES["b"]})
        found = self.broken(held, 1.0)
        self.assertEqual([entry for entry in found if entry[0] != "c" and entry[2]], [])


class Route6Tests(RouteTestCase):
    """An IPv6 VIP besides, over sessions of its own."""

    ipv6 = True

    def setUp(self) -> None:
        super().setUp()
        self.router.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv6.fib_multipath_hash_policy=1")
        self.far.run("ip", "addr", "add", f"{CLIENT6}/64", "dev", "eth0")
        self.far.run("ip", "route", "add", "default", "via", FAR_ROUTER6)
        self.wait_paths(set(NODES6.values()), VIP6)

    def test_two_of_three_leave(self) -> None:
        """Answers come by way of each of three; who drains and who dies is no way any longer, for either VIP."""
        self.answered()
        for name in NODES:
            status = self.status(name)
            self.assertEqual(sorted(status["routes"]["announced"]), sorted([VIP, VIP6]))
            forwarded = sum(worker["packets"] for worker in status["scheduler"]["workers"].values())
            self.assertGreater(forwarded, 50, name)
        self.drain("b")
        self.it.host("c").kill()
        for nodes, vip in ((NODES, VIP), (NODES6, VIP6)):
            self.wait_paths({nodes["a"]}, vip)
        wait_for(lambda: self.rows("a") == {"a"}, "all rows at a", 10, 0.1)
        self.answered()

    def rows(self, asked: str) -> set[str]:
        """The workers that have some."""
        workers = (self.it.status(asked) or {}).get("scheduler", {}).get("workers", {})
        return {name for name, worker in workers.items() if worker["rows"]}

    def answered(self) -> None:
        """A hundred requests over a connection each."""
        ask = f"for each in $(seq 100); do curl -s -m 5 -o /dev/null -w '%{{http_code}}\\n' http://[{VIP6}]/small; done"
        self.assertEqual(self.far.run("sh", "-c", ask).split(), ["200"] * 100)
