"""One virtual router of two programs: a node of ours, and keepalived. IPv4 and IPv6 at once."""

from __future__ import annotations

import os
import shutil
import signal

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.testbed.namespaces import Host
from lbarray.testbed.nodes import NODES, VIP, VIP6, Array, wait_for
from tests.system.test_array import need_namespaces

_INSTANCE = """
vrrp_instance {name} {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int 0.1
  virtual_ipaddress {{
    {addresses}
  }}
}}
"""
_VIPS = {"IPV4": f"{VIP}/24", "IPV6": f"fe80::200:5eff:fe00:233/64\n    {VIP6}/64"}


def unsigned(text: str) -> str:
    """A configuration without signatures, which keepalived does not know."""
    return text.replace("[failover]\n", '[failover]\nauthentication = "none"\n')


def start_keepalived(array: Array, host: Host, priority: int) -> None:
    """Run keepalived on a host until the array's end."""
    folder = array.folder / f"keepalived-{host.name}"
    folder.mkdir()
    instances = [_INSTANCE.format(name=name, priority=priority, addresses=vips) for name, vips in _VIPS.items()]
    (folder / "conf").write_text("global_defs {\n  vrrp_version 3\n}\n" + "".join(instances))
    pid_files = [part for option, name in (("-p", "p"), ("-r", "r")) for part in (option, str(folder / name))]
    with (folder / "log").open("wb") as log:
        host.start("keepalived", "-n", "-l", "-P", "-f", str(folder / "conf"), *pid_files, log=log)


class KeepalivedTests(SynchronousTestCase):
    """Node ``a`` (priority 150), and keepalived in the place of ``b``."""

    def setUp(self) -> None:
        need_namespaces()
        if shutil.which("keepalived") is None:
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                raise AssertionError("system tests are required: missing: keepalived")
            raise SkipTest("missing: keepalived")
        self.array = Array(nodes={name: NODES[name] for name in ("a", "b")}, edit=unsigned, ipv6=True).__enter__()
        self.addCleanup(self.array.close)
        self.array.host("b").kill()
        self.wait_owner("a")

    def wait_owner(self, name: str) -> None:
        """Until ``name`` and nobody else has both VIPs."""

        def look() -> bool:
            holders = {each for each in "ab" for vip in (VIP, VIP6) if self.array.host(each).has_address(vip)}
            both = all(self.array.host(name).has_address(vip) for vip in (VIP, VIP6))
            return holders == {name} and both

        wait_for(look, f"{name} to own the VIPs: {self.array.log_of('a')[-2000:]}", 15)

    def test_keepalived_as_our_backup(self) -> None:
        """keepalived of lower priority stays quiet while we live, takes over from us, and yields when we return."""
        start_keepalived(self.array, self.array.host("b"), 100)
        self.wait_owner("a")
        self.array.host("a").kill()
        b = self.array.host("b")
        wait_for(lambda: b.has_address(VIP) and b.has_address(VIP6), "keepalived to take the VIPs", 5, 0.01)
        self.array.start_node("a")
        self.wait_owner("a")

    def test_keepalived_as_our_master(self) -> None:
        """We yield to keepalived of higher priority, learn its death, and hear its farewell."""
        start_keepalived(self.array, self.array.host("b"), 200)
        self.wait_owner("b")
        status = self.array.status("a")
        assert status is not None
        routers = status["failover"]["routers"]
        self.assertEqual({name: router["state"] for name, router in routers.items()}, dict.fromkeys(routers, "backup"))
        self.assertEqual(routers["main"]["owner"], NODES["b"])
        self.assertTrue(routers["main6"]["owner"].startswith("fe80::"))
        self.assertNotIn("vrrp_refused", status["counters"])
        self.assertNotIn("vrrp_addresses_differ", status["counters"])
        for pid in self.array.host("b").pids():
            os.kill(pid, signal.SIGTERM)
        self.wait_owner("a")

    def test_we_hand_over_to_keepalived(self) -> None:
        """Our orderly stop gives keepalived the VIPs, and leaves none on our machine."""
        start_keepalived(self.array, self.array.host("b"), 100)
        self.wait_owner("a")
        for pid in self.array.host("a").pids():
            os.kill(pid, signal.SIGTERM)
        self.wait_owner("b")
