"""Failover beside keepalived, a process that stands still, and a planned handover: real programs, real packets."""

from __future__ import annotations

import os
import shutil
import signal

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.testbed.namespaces import Host
from lbarray.testbed.nodes import NODES, VIP, Array, wait_for
from tests.system.test_array import need_namespaces

_KEEPALIVED = """
global_defs {{
  vrrp_version 3
}}
vrrp_instance V {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int 0.1
  virtual_ipaddress {{
    {vip}/24
  }}
}}
"""


def start_keepalived(array: Array, host: Host, priority: int) -> None:
    """Run keepalived on a host until the array's end."""
    folder = array.folder / f"keepalived-{host.name}"
    folder.mkdir()
    (folder / "conf").write_text(_KEEPALIVED.format(priority=priority, vip=VIP))
    pid_files = [part for option, name in (("-p", "p"), ("-r", "r")) for part in (option, str(folder / name))]
    with (folder / "log").open("wb") as log:
        host.start("keepalived", "-n", "-l", "-P", "-f", str(folder / "conf"), *pid_files, log=log)


def heir_among(array: Array, *names: str) -> str | None:
    """The one of these hosts that has the VIP, when exactly one has."""
    holders = [name for name in names if array.host(name).has_address(VIP)]
    return holders[0] if len(holders) == 1 else None


class KeepalivedTests(SynchronousTestCase):
    """One router of two programs: node ``a`` (priority 150), and keepalived in the place of ``b``."""

    def setUp(self) -> None:
        need_namespaces()
        if shutil.which("keepalived") is None:
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                raise AssertionError("system tests are required: missing: keepalived")
            raise SkipTest("missing: keepalived")
        self.array = Array(nodes={name: NODES[name] for name in ("a", "b")}).__enter__()
        self.addCleanup(self.array.close)
        self.array.wait_ready()
        self.array.host("b").kill()

    def wait_owner(self, name: str) -> None:
        wait_for(lambda: heir_among(self.array, "a", "b") == name, f"{name} to own the VIP", 15)

    def test_keepalived_as_our_backup(self) -> None:
        """keepalived of lower priority stays quiet while we live, takes over from us, and yields when we return."""
        start_keepalived(self.array, self.array.host("b"), 100)
        self.wait_owner("a")
        self.array.host("a").kill()
        wait_for(lambda: self.array.host("b").has_address(VIP), "keepalived to take the VIP", 5, 0.01)
        self.array.start_node("a")
        self.wait_owner("a")

    def test_keepalived_as_our_master(self) -> None:
        """We yield to keepalived of higher priority, learn its death, and hear its farewell."""
        start_keepalived(self.array, self.array.host("b"), 200)
        self.wait_owner("b")
        status = self.array.status("a")
        assert status is not None
        self.assertEqual((status["failover"]["state"], status["failover"]["owner"]), ("backup", NODES["b"]))
        self.assertNotIn("vrrp_refused", status["counters"])
        for pid in self.array.host("b").pids():
            os.kill(pid, signal.SIGTERM)
        self.wait_owner("a")

    def test_we_hand_over_to_keepalived(self) -> None:
        """Our orderly stop gives keepalived the VIP, and leaves none on our machine."""
        start_keepalived(self.array, self.array.host("b"), 100)
        self.wait_owner("a")
        for pid in self.array.host("a").pids():
            os.kill(pid, signal.SIGTERM)
        self.wait_owner("b")


class FrozenNodeTests(SynchronousTestCase):
    """SIGSTOP and SIGCONT to the owner."""

    def setUp(self) -> None:
        need_namespaces()

    def test_frozen_owner_gives_up(self) -> None:
        """The kernel takes the VIP from a frozen node; when it wakes up it says so, and one owner remains."""
        with Array(nodes={name: NODES[name] for name in ("a", "b")}) as array:
            array.wait_ready()
            pids = array.host("a").pids()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: array.owners() == ["b"], "the VIP to leave the frozen node", 10)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            wait_for(lambda: heir_among(array, "a", "b") == "a", "the first owner to have it back", 10)
            array.wait_ready()
            self.assertIn("stood still", array.log_of("a"))


class HandoverTests(SynchronousTestCase):
    """An orderly stop of the owner."""

    def setUp(self) -> None:
        need_namespaces()

    def test_never_ownerless(self) -> None:
        """Looked at as often as we can: there is no moment at which nobody has the VIP."""
        with Array(nodes={name: NODES[name] for name in ("a", "b")}) as array:
            array.wait_ready()
            for pid in array.host("a").pids():
                os.kill(pid, signal.SIGTERM)
            while not array.host("b").has_address(VIP):
                # It may have moved since that look: a node without it is at fault only if b still lacks it.
                if not array.host("a").has_address(VIP):
                    self.assertTrue(array.host("b").has_address(VIP), "nobody has the VIP")
