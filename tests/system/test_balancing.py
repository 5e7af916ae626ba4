"""Three nodes, three back ends: who is persistent stays, whatever dies; a back end that dies costs little."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import BACKENDS, SITE, VIP, Array, wait_for
from lbarray.testbed.persistent import KINDS, first_path, known_by, visits, with_pools
from lbarray.testbed.resumption import Found, Resumption
from lbarray.testbed.visitors import Visit, Welcome
from tests.system.sharing import shared
from tests.system.test_array import need_namespaces

#: Clients of each kind; ``python -m benchmarks persistence`` takes 10,000.
CLIENTS_OF_EACH = int(os.environ.get("LBARRAY_CLIENTS", "600"))


def array_with_pools() -> Array:
    """An array that several tests look at."""
    array = Array(edit=with_pools).__enter__()
    array.wait_ready()
    return array


class BalancingTests(SynchronousTestCase):
    """One array for all of these; the last one kills."""

    def setUp(self) -> None:
        need_namespaces()
        self.it = shared(array_with_pools)

    def first_visits(self, kind: str) -> list[Welcome]:
        numbers = range(CLIENTS_OF_EACH)
        return self.it.visit(visits(*(Visit(first_path(kind), known_by(kind, number)) for number in numbers)))

    def test_1_routes(self) -> None:
        """Redirects and answers of our own, edited fields, copies to a shadow."""
        answer = self.it.client.run("curl", "-si", "-H", f"Host: {SITE}", f"http://{VIP}/moved")
        self.assertIn("308 Permanent Redirect", answer)
        self.assertIn(f"Location: https://{SITE}/small", answer)
        answer = self.it.client.run("curl", "-si", "-H", f"Host: {SITE}", f"http://{VIP}/teapot")
        self.assertIn("403 Forbidden", answer)
        self.assertTrue(answer.endswith("no tea"))

        def copies() -> int:
            found = [self.it.status(node) for node in self.it.nodes]
            return sum(each["requests"] for status in found if status for each in status["pools"]["hash"].values())

        before = copies()
        welcomes = self.it.visit(visits(*[Visit("/small")] * 30))
        self.assertEqual({welcome.status for welcome in welcomes}, {200})
        wait_for(lambda: copies() - before == 30, "30 copies", 5, 0.1)

    def test_2_shared_checks(self) -> None:
        """Nodes that share their checks ask each back end little more than one would."""

        def looks() -> int:
            found = [self.it.status(node) for node in self.it.nodes]
            return sum(int(status["balancing"]["hash"]["looks"]) for status in found if status)

        def seen() -> int:
            found = [self.it.status(node) for node in self.it.nodes]
            return sum(int(status["balancing"]["hash"]["seen"]) for status in found if status)

        looked, heard = looks(), seen()
        wait_for(lambda: seen() - heard >= 60, "60 results", 20, 0.2)
        # Three nodes: a third of the results are own looks, and a few more for each node's own eyes.
        self.assertLess(looks() - looked, 0.7 * (seen() - heard))

    def lbarray(self, *arguments: str) -> str:
        """The command line on node a."""
        socket = f"{self.it.folder}/state/a.sock"
        return self.it.host("a").run(sys.executable, "-m", "lbarray", *arguments, "--socket", socket)

    def member(self, node: str, name: str) -> dict[str, Any]:
        status = self.it.status(node)
        found: dict[str, Any] = status["pools"]["web"].get(name, {}) if status else {}
        return found

    def test_2_changed_by_command(self) -> None:
        """A back end is weighed, removed and added again at one node, and all nodes do it."""
        nodes = list(self.it.nodes)
        self.lbarray("weigh", "web/w2", "7")
        wait_for(lambda: all(self.member(node, "w2")["weight"] == 7 for node in nodes), "the weight everywhere", 5, 0.1)
        self.lbarray("remove", "web/w2")
        wait_for(lambda: not any(self.member(node, "w2") for node in nodes), "w2 to be gone everywhere", 5, 0.1)
        welcomes = self.it.visit(visits(*[Visit("/small")] * 30))
        self.assertEqual({welcome.backend for welcome in welcomes}, {"w1", "w3"})
        said = self.lbarray("add", "web/w2", f"{BACKENDS['w2']}:80")
        self.assertIn("is added at", said)
        wait_for(lambda: all(self.member(node, "w2").get("state") == "up" for node in nodes), "w2 everywhere", 5, 0.1)

    def test_2_queue(self) -> None:
        """One back end that takes one request at a time from each node: all others wait, and all are answered."""
        welcomes = self.it.visit(visits(*[Visit("/narrow/small")] * 600, connections=24))
        self.assertEqual({(welcome.status, welcome.backend) for welcome in welcomes}, {(200, "w1")})
        found = [self.it.status(node) for node in self.it.nodes]
        self.assertGreater(sum(status["counters"].get("queued", {}).get("narrow", 0) for status in found if status), 0)

    def test_3_back_end_dies_under_load(self) -> None:
        """500 requests a second while a back end is killed: those that may be repeated are, and none fails."""
        them = visits(*[Visit("/small")] * 2000, connections=24, rate=500.0, patience_s=0.0)
        found: list[Welcome] = []
        running = threading.Thread(target=lambda: found.extend(self.it.visit(them)))
        running.start()
        time.sleep(1.5)
        # It stands still for a moment, so that there are requests in hand when it dies.
        for pid in self.it.host("w3").pids():
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.15)
        self.it.host("w3").kill()
        running.join()
        self.it.start_backend("w3")
        bad = [welcome for welcome in found if welcome.status != 200]
        self.assertEqual(bad, [])
        self.assertEqual(len(found), 2000)
        self.assertGreater(Counter(welcome.backend for welcome in found)["w3"], 100)
        wait_for(lambda: self.states("w3") == {"up"}, "w3 to be up", 15, 0.2)

    def states(self, backend: str) -> set[str]:
        found = set()
        for node in self.it.nodes:
            status = self.it.status(node)
            pools = status["pools"].values() if status else [{backend: {"state": "?"}}]
            found |= {members[backend]["state"] for members in pools if backend in members}
        return found

    def test_4_node_dies(self) -> None:
        """A worker is killed, and then the scheduler: every client stays at its back end, by cookie, by hash and by
        session."""
        self.it.wait_ready()  # whatever the tests before have done to it
        first = {kind: self.first_visits(kind) for kind in KINDS}
        for welcomes in first.values():
            self.assertEqual({welcome.status for welcome in welcomes}, {200})
            self.assertEqual({welcome.backend for welcome in welcomes}, set(BACKENDS))
        # A node that is at its beginning yet has few rows, and perhaps none of one kind's clients.
        nodes = {welcome.node for welcomes in first.values() for welcome in welcomes}
        self.assertEqual(nodes, set(self.it.nodes))
        owner = self.it.owner()
        worker = next(name for name in self.it.nodes if name != owner)
        for victim in (worker, owner):
            self.it.kill_node(victim)
            for kind, welcomes in first.items():
                again = self.it.visit(
                    visits(*(Visit(f"/{kind}/small", known_by(kind, each.place, each)) for each in welcomes))
                )
                self.assertEqual({welcome.status for welcome in again}, {200}, kind)
                self.assertNotIn(victim, {welcome.node for welcome in again})
                moved = [then for then, now in zip(welcomes, again, strict=True) if then.backend != now.backend]
                self.assertEqual(moved, [], (kind, victim))


class TlsSessionTests(SynchronousTestCase):
    """Three nodes of two processes each, whose pool goes by TLS sessions."""

    def test_clients_that_wander(self) -> None:
        """Sessions of TLS 1.2 and 1.3 come back from other addresses, thus to other nodes and processes, after the
        scheduler was killed: nobody can open most of their tickets, and all of them meet their back end."""
        need_namespaces()

        def edit(text: str) -> str:
            text = text.replace("[worker]", "[worker]\nprocesses = 2")
            return text.replace('persistence = { cookie = "LBARRAY" }', 'persistence = { kind = "tls" }')

        with Array(edit=edit) as array:
            array.wait_ready()
            gate = array.folder / "gate"
            clients = Resumption(
                host=VIP,
                port=443,
                name=SITE,
                authority=str(array.folder / "site.crt"),
                sessions=240,
                gate=str(gate),
                wander=True,
            )
            found: list[Found] = []
            running = threading.Thread(target=lambda: found.append(clients.run_in(array.client)))
            running.start()
            wait_for(lambda: Path(f"{gate}.first").exists(), "the first visits", 30)
            time.sleep(0.3)  # what was learnt is told within 20 ms
            dead = array.owner()
            array.kill_node(dead)

            def succeeded() -> bool:
                # The kernel of the dead node refuses connections for as long as it has the VIP.
                owners = array.owners()
                status = array.status(owners[0]) if len(owners) == 1 and owners != [dead] else None
                return status is not None and not status["scheduler"]["workers"].get(dead, {}).get("rows")

            wait_for(succeeded, "a successor that sends nobody to the dead node", 10)
            gate.touch()
            running.join()
            self.assertEqual((found[0].failed, found[0].moved), (0, 0), found[0].said)
            self.assertEqual(found[0].backends, tuple(BACKENDS))
            self.assertLess(found[0].resumed, 200)
