"""What differs between two configurations."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.config.changes import differences, needing_restart
from lbarray.config.load import parse

TEXT = """
[services.http]
address = "127.0.0.1"
port = 8080
[pools.web.backends]
w1 = { address = "127.0.0.1:8001" }
w2 = { address = "127.0.0.1:8002" }
[[routes]]
pool = "web"
"""


def said(new: str, old: str = TEXT) -> list[str]:
    return [str(difference) for difference in differences(parse(old), parse(new))]


class DifferenceTests(SynchronousTestCase):
    """Key by key."""

    def test_nothing(self) -> None:
        """Another way to write the same is no difference."""
        self.assertEqual(said(TEXT + "# a comment\n[array]\nname = 'lbarray'\n"), [])

    def test_value(self) -> None:
        """A value that changed, with both of its values, as one writes them."""
        new = TEXT.replace('"127.0.0.1:8001" }', '"127.0.0.1:8001", weight = 3 }')
        self.assertEqual(said(new), ["pools.web.backends.w1.weight: 1 becomes 3"])
        new = TEXT.replace("8001", "9001")
        self.assertEqual(said(new), ['pools.web.backends.w1.address: "127.0.0.1:8001" becomes "127.0.0.1:9001"'])

    def test_added_and_removed(self) -> None:
        """Tables that came or went are named as a whole."""
        new = TEXT.replace("w2 =", "w3 =") + "[cdn]\nhost = 'cdn.example'\npaths = ['/a/']\n"
        self.assertEqual(
            said(new),
            ["pools.web.backends.w2: gone, was a table", "pools.web.backends.w3: new, a table", "cdn: new, a table"],
        )

    def test_list_of_tables(self) -> None:
        """Routes are named by their place."""
        new = TEXT + 'host = "a.example"\n[[routes]]\npool = "web"\n'
        self.assertEqual(said(new), ['routes[0].host: "*" becomes "a.example"', "routes[1]: new, a table"])

    def test_order(self) -> None:
        """The order of back ends is a difference: some policies go by it."""
        new = TEXT.replace('w1 = { address = "127.0.0.1:8001" }\n', "").replace(
            "[[routes]]", 'w1 = { address = "127.0.0.1:8001" }\n[[routes]]'
        )
        self.assertEqual(said(new), ["pools.web.backends: w1, w2 becomes w2, w1"])

    def test_restart(self) -> None:
        """What names the machines of an array cannot change in a running node, and it is said why."""
        new = TEXT.replace("8080", "8081") + "[membership]\nport = 4781\n"
        found = differences(parse(TEXT), parse(new))
        self.assertEqual([difference.key for difference in found], ["membership.port", "services.http.port"])
        self.assertEqual([difference.key for difference in needing_restart(found)], ["membership.port"])
        self.assertIn("every node", needing_restart(found)[0].fixed_because)

    def test_live(self) -> None:
        """Priorities, weights, VIPs, routers, intervals, scripts, shares, logs: a running node takes them up."""
        array = """
[array]
key_file = "k"
vips = ["192.0.2.100/24"]
[array.nodes.a]
address = "192.0.2.1"
[services.http]
vip = "192.0.2.100"
port = 80
[pools.web.backends]
w1 = { address = "127.0.0.1:8001" }
"""
        new = (
            array.replace('"192.0.2.1"', '"192.0.2.1"\npriority = 7\nweight = 3').replace(
                'vips = ["192.0.2.100/24"]', 'vips = ["192.0.2.100/24", "192.0.2.101/24"]'
            )
            + """
[failover]
interval = 0.5
preempt = false
no_worker_weight = 10
[failover.routers.second]
vips = ["192.0.2.101"]
virtual_router_id = 52
[failover.scripts.ping]
command = ["/bin/true"]
[membership]
interval = 0.25
[scheduler]
feedback = false
slow_start = 0
probe_interval = 2
[worker]
processes = 3
[log]
level = "debug"
[access_log]
format = "json"
"""
        )
        found = differences(parse(array), parse(new))
        self.assertEqual(len(found), 15)
        self.assertEqual(needing_restart(found), [])
        moved = differences(parse(array), parse(array.replace('192.0.2.1"', '192.0.2.2"')))
        self.assertEqual([difference.key for difference in needing_restart(moved)], ["array.nodes.a.address"])
