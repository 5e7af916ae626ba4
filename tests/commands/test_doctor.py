"""What the doctor says of a machine."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.commands.doctor import Finding, Machine, examine
from lbarray.config.load import parse

TEXT = """
[array]
key_file = "array.key"
interface = "lo"
vips = ["127.9.9.9/8"]
nodes = { a = { address = "127.0.0.1" }, b = { address = "192.0.2.2" } }
[services.http]
vip = "127.9.9.9"
port = 80
[pools.web.backends]
w1 = { address = "192.0.2.21:80" }
"""


class Patient(Machine):
    """A machine whose ailments a test chooses."""

    def __init__(self, **ails: Any) -> None:
        self.ails = ails

    def __getattribute__(self, name: str) -> Any:
        ails = object.__getattribute__(self, "__dict__").get("ails", {})
        return ails.get(name, object.__getattribute__(self, name))

    def sysctl(self, name: str) -> str:
        return str(self.ails.get(name, "4096" if name.endswith("somaxconn") else "0"))

    def run(self, *command: str) -> str:
        return str(self.ails.get(" ".join(command), ""))


WELL: dict[str, Any] = {
    "kernel": lambda: (6, 1),
    "is_root": lambda: True,
    "clock_is_set": lambda: True,
    "open_files": lambda: 1 << 20,
    "connects": lambda host, port: "",
    "taken": lambda host, port: False,
    "packet_program": lambda: "",
}


class DoctorTests(SynchronousTestCase):
    """Each ailment is found, with a command."""

    def examine(self, text: str = TEXT, **ails: Any) -> list[Finding]:
        return [f for f in examine(parse(text), "a", Patient(**WELL | ails)) if f.level != "good"]

    def found(self, level: str, words: str, advice: str, text: str = TEXT, **ails: Any) -> None:
        before = self.examine(text)
        new = [finding for finding in self.examine(text, **ails) if finding not in before]
        self.assertEqual([finding.level for finding in new], [level], new)
        self.assertIn(words, new[0].what)
        self.assertIn(advice, new[0].advice)

    def test_well(self) -> None:
        """A machine that lacks nothing has nothing to be put right, but for what a test has no say in."""
        self.assertEqual([finding.what for finding in self.examine() if "/var/lib/lbarray" not in finding.what], [])

    def test_kernel(self) -> None:
        """Too old."""
        self.found("bad", "4.19", "apt-get install linux-image", kernel=lambda: (4, 19))

    def test_not_root(self) -> None:
        """An array's node needs root to start."""
        self.found("bad", "not root", "sudo", is_root=lambda: False)

    def test_packet_program(self) -> None:
        """No eBPF object and no compiler."""
        self.found("bad", "clang is missing", "libbpf", packet_program=lambda: "clang is missing")

    def test_files(self) -> None:
        """Too few open files."""
        self.found("warn", "1024 open files", "LimitNOFILE", open_files=lambda: 1024)

    def test_clock(self) -> None:
        """Nothing keeps it right."""
        self.found("warn", "clock", "chrony", clock_is_set=lambda: False)

    def test_taken(self) -> None:
        """A port that another program has."""
        self.found("warn", "TCP port 9080", "ss -ltnp", taken=lambda host, port: port == 9080)

    def test_back_end(self) -> None:
        """One that takes no connection."""
        self.found("warn", "refused", "curl", connects=lambda host, port: "Connection refused")

    def test_rp_filter(self) -> None:
        """Strict, and the way back is another interface."""
        self.found(
            "bad", "rp_filter", "sysctl -w net.ipv4.conf.lo.rp_filter=2",
            **{"net.ipv4.conf.lo.rp_filter": "1", "ip -o route show default": "default via 10.0.0.254 dev eth9"},
        )  # fmt: skip

    def test_router_between(self) -> None:
        """Another node that is no neighbour."""
        self.found(
            "warn",
            "node b (192.0.2.2) is behind a router",
            "tunnel",
            **{"ip -o route get 192.0.2.2": "192.0.2.2 via 10.0.0.254 dev eth0"},
        )

    def test_firewall(self) -> None:
        """Drops what no rule lets in: the rules for VRRP, heartbeats and clients."""
        chain = {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}
        self.found(
            "warn",
            "inet filter input",
            "nft insert rule inet filter input ip protocol 112 accept",
            **{"nft -j list ruleset": json.dumps({"nftables": [{"chain": chain}]})},
        )

    def test_keepalived(self) -> None:
        """It runs too."""
        self.found("warn", "keepalived", "disable --now", **{"pgrep -x keepalived": "17\n"})

    def test_wrong_node(self) -> None:
        """The node's address is not on the interface."""
        text = TEXT.replace("127.0.0.1", "192.0.2.7")
        bad = [finding for finding in self.examine(text) if finding.level == "bad"]
        self.assertEqual(len(bad), 1)
        self.assertIn("192.0.2.7", bad[0].what)

    def test_one_cause(self) -> None:
        """What only follows from a missing address is not listed beside it."""
        routed = {"ip -o route get 192.0.2.2": "192.0.2.2 via 10.0.0.254 dev eth0"}
        found = self.examine(TEXT.replace("127.0.0.1", "192.0.2.7"), **routed)
        self.assertNotIn("behind a router", str(found))

    def test_interface(self) -> None:
        """No such interface: those that there are."""
        bad = [f for f in self.examine(TEXT.replace('"lo"', '"eth77"')) if f.level == "bad"]
        self.assertIn("eth77", bad[0].what)
