"""What operators and programs read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.console.actions import Action, Actions, Argument, Refused
from lbarray.console.metrics import exposition
from lbarray.console.prompt import namespace, welcome
from lbarray.console.tables import array_table, pools_table, rewriting_table, services_table, status_tables, table
from lbarray.console.view import NodeView
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.durations import MOST_ROUTES, Durations, backend_series

ROOT = Path(__file__).resolve().parent.parent.parent
MEMBER = {
    "address": "192.0.2.1",
    "roles": ["SCHEDULER", "WORKER"],
    "configuration": "0123456789ab",
    "accepting": True,
    "draining": False,
    "weight": 100,
    "share": 0.5,
    "connections": 3,
    "requests_per_s": 12.5,
    "cpu": 0.25,
    "since_s": 60.0,
    "owned": ["192.0.2.100"],
}
BACKEND = {
    "address": "192.0.2.21:80",
    "state": "up",
    "since_s": 5.0,
    "check": "status 200",
    "weight": 1,
    "outstanding": 2,
    "requests": 7,
    "failures": 1,
    "idle": 4,
}
PARTS: dict[str, Any] = {
    "failover": {
        "owned": ["192.0.2.100"],
        "routers": {
            "main": {
                "vips": ["192.0.2.100/24"],
                "state": "active",
                "owner": "192.0.2.1",
                "priority": 150,
                "transitions": 1,
                "since_s": 5.0,
                "takeover_s": 0.35,
                "failing": {},
            },
        },
    },
    "membership": {"members": {"a": MEMBER}, "missing": ["b"]},
    "scheduler": {
        "verdicts": {"forwarded": 5, "dropped_truncated": 2},
        "workers": {"a": {"rows": 7}},
        "services": {"192.0.2.100:80/tcp": {"a": {"packets": 5, "octets": 500, "cached": 3, "passed_on": 1}}},
    },
    "services": {"http": {"at": "192.0.2.100:80/tcp", "tls": False, "connections": 1, "accepted": 2, "requests": 3}},
    "pools": {"web": {"w1": BACKEND}},
    "rewriting": {
        "pages": 3,
        "urls": 40,
        "cdn": ["https://cdn.example"],
        "cdn_failing": ["https://cdn.example"],
        "probes": {"cdn.example": {"alive": False, "said": "status 500"}},
        "memo": {"octets": 9, "hits": 5, "misses": 1},
    },
    "balancing": {"web": {"fit": 1, "outstanding": 2, "queued": 3, "retries": 4}},
}


def make_actions(heard: list[tuple[object, ...]]) -> Actions:
    left = [1, 1, 0]

    def drain(name: str | None, draining: bool, force: bool) -> dict[str, object]:
        heard.append((draining,))
        return {"node": name or "a", "draining": draining, "said": "draining" if draining else "serving"}

    def remaining() -> dict[str, object]:
        connections = left.pop(0)
        return {"nodes": {"a": {"connections": connections, "empty": not connections}}}

    def drain_backend(pool: str, backend: str, draining: bool) -> dict[str, object]:
        if backend != "w1":
            raise Refused(f"no back end {pool}/{backend}")
        heard.append((pool, backend, draining))
        return {"said": f"{pool}/{backend}"}

    def weigh(name: str, weight: int) -> dict[str, object]:
        return {"said": f"node {name} weighs {weight}"}

    def weigh_backend(pool: str, backend: str, weight: int, everywhere: bool) -> dict[str, object]:
        return {"said": f"back end {pool}/{backend} weighs {weight}"}

    def handover(to: str | None, vip: str | None) -> dict[str, object]:
        return {"said": "handed over"}

    def where(client: str, port: int | None) -> Deferred[dict[str, object]]:
        return succeed({"client": client, "port": port})

    draining = Argument("draining", "false ends it", kind="flag", required=False, default=True)
    return Actions(
        [
            Action(
                name="drain",
                summary="Drain.",
                arguments=(
                    Argument("name", "whom", required=False),
                    draining,
                    Argument("force", "all the same", kind="flag", required=False, default=False),
                ),
                run=drain,
            ),
            Action(name="draining", summary="What remains.", run=remaining, changes=False),
            Action(
                name="drain-backend",
                summary="Drain a back end.",
                arguments=(Argument("pool", "its pool"), Argument("backend", "its name"), draining),
                run=drain_backend,
            ),
            Action(
                name="weigh",
                summary="Weigh.",
                arguments=(Argument("name", "whom"), Argument("weight", "how much", kind="integer")),
                run=weigh,
            ),
            Action(
                name="weigh-backend",
                summary="Weigh a back end.",
                arguments=(
                    Argument("pool", "its pool"),
                    Argument("backend", "its name"),
                    Argument("weight", "how much", kind="integer"),
                    Argument("everywhere", "on all nodes", kind="flag"),
                ),
                run=weigh_backend,
            ),
            Action(
                name="handover",
                summary="Hand over.",
                arguments=(Argument("to", "a node", required=False), Argument("vip", "an address", required=False)),
                run=handover,
            ),
            Action(
                name="where",
                summary="Where a client's packets go.",
                arguments=(
                    Argument("client", "its address"),
                    Argument("port", "its port", kind="integer", required=False),
                ),
                run=where,
                changes=False,
            ),
        ]
    )


def make_view(drained: list[tuple[object, ...]] | None = None) -> NodeView:
    counters = Counters()
    counters.add("answers", "503")
    heard = [] if drained is None else drained
    return NodeView(
        node="a",
        array="shop",
        version="1",
        uptime_s=lambda: 61.23,
        counters=counters,
        parts=lambda: {key: lambda value=value: value for key, value in PARTS.items()},  # type: ignore[misc]
        actions=make_actions(heard),
    )


class TableTests(SynchronousTestCase):
    """Plain text."""

    def test_columns(self) -> None:
        """As wide as their content, numbers to the right, truth in words, nothing for nothing."""
        self.assertEqual(
            table(["name", "n", "ok"], [["long name", 1, True], ["x", 22, None]]).splitlines(),
            ["name        n  ok", "---------  --  ---", "long name   1  yes", "x          22"],
        )

    def test_no_rows(self) -> None:
        """An empty table has its heads."""
        self.assertEqual(table(["a"], []).splitlines(), ["a", "-"])

    def test_array(self) -> None:
        """Who is in, who owns the VIPs, who is missing."""
        lines = array_table(PARTS).splitlines()
        self.assertEqual(lines[2].split()[:4], ["a", "192.0.2.1", "192.0.2.100", "accepts"])
        self.assertEqual(lines[3].split(), ["b", "missing"])

    def test_different_configurations(self) -> None:
        """Nodes that do not run the same configuration are noticed, with what to do."""
        status: dict[str, Any] = {"node": "a", "array": "shop", "version": "1", "uptime_s": 1.0, **PARTS}
        self.assertNotIn("lbarray push", status_tables(status))
        members = {"a": MEMBER, "b": {**MEMBER, "configuration": "ba9876543210"}}
        self.assertIn("lbarray push", status_tables(status | {"membership": {"members": members}}))

    def test_rewriting(self) -> None:
        """Which hosts of the CDN are in use; nothing without a CDN."""
        lines = rewriting_table(PARTS).splitlines()
        self.assertEqual(lines[2].split()[:2], ["https://cdn.example", "no"])
        self.assertEqual(lines[3], "rewritten: pages 3, urls 40, from the memo 5")
        self.assertEqual(rewriting_table({}), "")

    def test_tolerant(self) -> None:
        """A node without these parts has empty tables, not errors."""
        for make in (array_table, services_table, pools_table):
            self.assertEqual(len(make({}).splitlines()), 2)


class ViewTests(SynchronousTestCase):
    """One dictionary of everything."""

    def test_json(self) -> None:
        """It can be written as JSON, counters by label among it."""
        status = json.loads(json.dumps(make_view().status()))
        self.assertEqual(status["counters"], {"answers": {"503": 1}})
        self.assertEqual(status["uptime_s"], 61.2)
        self.assertEqual(status["pools"]["web"]["w1"]["requests"], 7)


class MetricsTests(SynchronousTestCase):
    """What Prometheus scrapes."""

    def test_exposition(self) -> None:
        """Counters, gauges and who owns the VIPs."""
        text = exposition(make_view())
        for line in (
            'lbarray_answers_total{label="503"} 1.0',
            'lbarray_connections{service="http"} 1.0',
            'lbarray_requests_total{service="http"} 3.0',
            'lbarray_backend_up{backend="w1",pool="web"} 1.0',
            'lbarray_backend_outstanding{backend="w1",pool="web"} 2.0',
            'lbarray_backend_circuit{backend="w1",pool="web"} 0.0',
            'lbarray_pool_queued{pool="web"} 3.0',
            'lbarray_pool_retries_total{pool="web"} 4.0',
            'lbarray_vip_owner{router="main",vip="192.0.2.100"} 1.0',
            'lbarray_cdn_host_up{host="cdn.example"} 0.0',
            "lbarray_rewrite_memo_octets 9.0",
            'lbarray_plane_packets_total{verdict="dropped_truncated"} 2.0',
            'lbarray_rows{worker="a"} 7.0',
            'lbarray_worker_packets_total{service="192.0.2.100:80/tcp",worker="a"} 5.0',
            'lbarray_worker_cache_hits_total{service="192.0.2.100:80/tcp",worker="a"} 3.0',
            'lbarray_worker_second_chances_total{service="192.0.2.100:80/tcp",worker="a"} 1.0',
            'lbarray_node_share{node="a"} 0.5',
        ):
            self.assertIn(line + "\n", text)

    def test_durations(self) -> None:
        """Each route of a service has a histogram and its responses; the status has quantiles, not buckets."""
        view = make_view()
        durations = Durations(view.counters, "http")
        for seconds, status, route in ((0.002, 200, "*/"), (0.002, 204, "*/"), (0.3, 502, "www.example/a/b")):
            durations.observe(seconds, status, route)
        text = exposition(view)
        for line in (
            'lbarray_request_duration_seconds_bucket{le="0.0025",route="*/",service="http"} 2.0',
            'lbarray_request_duration_seconds_bucket{le="+Inf",route="*/",service="http"} 2.0',
            'lbarray_request_duration_seconds_sum{route="www.example/a/b",service="http"} 0.3',
            'lbarray_responses_total{route="*/",service="http",status="2xx"} 2.0',
            'lbarray_responses_total{route="www.example/a/b",service="http",status="5xx"} 1.0',
        ):
            self.assertIn(line + "\n", text)
        self.assertNotIn("lbarray_request_duration_us", text)
        service = view.status()["services"]["http"]  # type: ignore[index]
        self.assertTrue(0.25 < service["latency_s"]["p99"] <= 0.5)
        self.assertEqual(service["routes"]["www.example/a/b"]["errors"], 1)
        self.assertTrue(service["routes"]["*/"]["latency_s"]["p99"] <= 0.0025)

    def test_bounded(self) -> None:
        """However many routes a service has, a monitor gets so many series and no more; no request is lost."""
        view = make_view()
        durations = Durations(view.counters, "http")
        for place in range(3 * MOST_ROUTES):
            durations.observe(0.1, 200, f"*/{place}")
        lines = [line for line in exposition(view).splitlines() if line.startswith("lbarray_responses_total")]
        self.assertEqual(len(lines), MOST_ROUTES + 1)
        self.assertEqual(sum(float(line.split()[-1]) for line in lines), 3 * MOST_ROUTES)

    def test_backends(self) -> None:
        """Each back end has a histogram, and how its requests ended."""
        view = make_view()
        series = backend_series(view.counters, "web", "w1")
        series.observe(0.002, "answered")
        series.observe(3.0, "timed_out")
        text = exposition(view)
        for line in (
            'lbarray_backend_request_duration_seconds_bucket{backend="w1",le="0.0025",pool="web"} 1.0',
            'lbarray_backend_request_duration_seconds_count{backend="w1",pool="web"} 2.0',
            'lbarray_backend_outcomes_total{backend="w1",outcome="timed_out",pool="web"} 1.0',
        ):
            self.assertIn(line + "\n", text)

    def test_array(self) -> None:
        """Who is in and who is missing; how many configurations run."""
        text = exposition(make_view())
        for line in (
            'lbarray_node_in{node="a"} 1.0',
            'lbarray_node_in{node="b"} 0.0',
            'lbarray_node_cpu{node="a"} 0.25',
            "lbarray_configurations 1.0",
            'lbarray_build_info{array="shop",configuration="",node="a",version="1"} 1.0',
        ):
            self.assertIn(line + "\n", text)

    def test_names(self) -> None:
        """Every name follows the conventions: base units, counters end in _total, and is one of ours or everybody's."""
        for line in exposition(make_view()).splitlines():
            if line.startswith("# TYPE"):
                _, _, name, kind = line.split()
                self.assertRegex(name, r"^(lbarray|process)_[a-z0-9_]+$")
                self.assertEqual(name.endswith("_total"), kind == "counter", name)
                self.assertNotRegex(name, r"_(ms|us|kb|percent)$")

    def test_alerts(self) -> None:
        """The alerts and the dashboard that we ship speak of metrics that there are."""
        rules = (ROOT / "etc" / "prometheus-alerts.yml").read_text()
        view = make_view()
        Durations(view.counters, "http").observe(0.1, 200)
        backend_series(view.counters, "web", "w1").observe(0.1, "answered")
        there = set(re.findall(r"^(lbarray_\w+)", exposition(view), re.MULTILINE))
        said = set(re.findall(r"lbarray_[a-z0-9_]+", rules + (ROOT / "etc" / "grafana-dashboard.json").read_text()))
        later = {"lbarray_certificate_expiry_seconds", "lbarray_reactor_lag_seconds", "lbarray_worker_packets_total"}
        self.assertEqual(said - there - later, set())

    def test_promtool(self) -> None:
        """Prometheus's own tool finds nothing wrong with the alerts, and they fire upon what they are for."""
        promtool = shutil.which("promtool")
        if promtool is None:
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                self.fail("promtool is missing: tools/system-packages installs it (Debian package prometheus)")
            raise SkipTest("promtool is not here")
        for command in (
            ["check", "rules", str(ROOT / "etc" / "prometheus-alerts.yml")],
            ["test", "rules", str(ROOT / "tests" / "console" / "alerts.yml")],
        ):
            done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_linted(self) -> None:
        """What a node says is what Prometheus reads, without a complaint of its linter."""
        promtool = shutil.which("promtool")
        if promtool is None:
            raise SkipTest("promtool is not here")
        view = make_view()
        Durations(view.counters, "http").observe(0.1, 200, "*/")
        done = subprocess.run(
            [promtool, "check", "metrics"], input=exposition(view), capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class NamespaceTests(SynchronousTestCase):
    """What the manhole offers."""

    def test_names(self) -> None:
        """Typing a name prints its table."""
        names = namespace(make_view())
        for name, word in (
            ("array", "192.0.2.100"),
            ("vip", "main"),
            ("services", "192.0.2.100:80/tcp"),
            ("pools", "status 200"),
        ):
            self.assertIn(word, repr(names[name]))
        self.assertIn("answers 503", repr(names["node"]))

    def test_actions(self) -> None:
        """Draining a back end, draining the node, handing over."""
        heard: list[tuple[object, ...]] = []
        names: dict[str, Any] = namespace(make_view(heard))
        names["pools"].drain("web", "w1")
        self.assertEqual(repr(names["node"].drain()), "draining")
        self.assertEqual(repr(names["node"].handover()), "handed over")
        self.assertEqual(heard, [("web", "w1", True), (True,)])

    def test_refusals_are_said(self) -> None:
        """What cannot be is said in words; a wrong call says how it is called."""
        names: dict[str, Any] = namespace(make_view([]))
        self.assertEqual(repr(names["pools"].drain("web", "w9")), "no back end web/w9")
        self.assertIn("backend is missing", repr(names["pools"].drain("web")))
        self.assertIn("it is called as drain_backend(pool, backend", repr(names["pools"].drain(1, 2, 3, 4)))

    def test_help(self) -> None:
        """help is for operators: what there is, what can be done with a thing, and how."""
        names: dict[str, Any] = namespace(make_view([]))
        for name in ("array", "node", "vip", "scheduler", "workers", "pools", "flows", "certs", "rules"):
            self.assertIn(f"\n{name} ", repr(names["help"]))
            repr(names[name])
        text = repr(names["help"](names["pools"]))
        self.assertIn("pools.drain_backend(pool, backend, draining=True)", text)
        self.assertIn("false ends it", text)
        self.assertIn("where(client, port=None)", repr(names["help"](names["do"].where)))
        self.assertIn("can do: drain", str(self.assertRaises(AttributeError, getattr, names["pools"], "drian")))

    def test_questions(self) -> None:
        """What is answered later is answered all the same."""
        names: dict[str, Any] = namespace(make_view([]))
        answered = self.successResultOf(names["flows"].where("192.0.2.7", port=4000))
        self.assertIn("192.0.2.7", repr(answered))

    def test_welcome(self) -> None:
        """Where one is, who owns the VIPs, and what one can type."""
        text = welcome(make_view())
        for words in ("Node a of array shop", "The VIPs are with node a", "help", "TAB", "is logged"):
            self.assertIn(words, text)
