"""A dead owner's successor, beside keepalived: ``python -m benchmarks failover``

Two nodes of priorities 150 and 130 on one switch. The owner's processes get SIGKILL and its cable is pulled in the same
moment; ``takeover_s`` is the time until the other one has the VIP on its interface.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.harness import Bench, Row, ratio_table
from lbarray.testbed.namespaces import Host, Network
from lbarray.testbed.nodes import NODES, VIP, Array, wait_for

INTERVALS_S = (1.0, 0.1)
PAIR = dict(list(NODES.items())[:2])


def main() -> None:
    """At advertisement intervals of one second and of a tenth."""
    with Bench() as bench:
        for interval_s in INTERVALS_S:
            contenders: dict[str, Callable[[], Row]] = {
                "keepalived": lambda interval_s=interval_s: _keepalived(bench, interval_s),  # type: ignore[misc]
                "lbarray": lambda interval_s=interval_s: _lbarray(interval_s),  # type: ignore[misc]
            }
            rows = bench.rounds(contenders)
            title = f"owner dies, interval {interval_s:g} s"
            ratio_table("failover", title, rows, against="keepalived", columns=["takeover_s"])


def _takeover(network: Network, owner: Host, other: Host) -> Row:
    time.sleep(0.37)  # not in step with the advertisements
    began = time.monotonic()
    network.link(owner.name, False)
    owner.kill()
    wait_for(lambda: other.has_address(VIP), "the successor", 10, 0.002)
    return {"takeover_s": time.monotonic() - began}


def _lbarray(interval_s: float) -> Row:
    def edit(text: str) -> str:
        return text.replace('[failover]\ninterval = "100ms"', f"[failover]\ninterval = {interval_s}")

    with Array(nodes=PAIR, edit=edit) as array:
        wait_for(lambda: array.owners() == ["a"], "the owner", 15, 0.1)
        time.sleep(4 * interval_s + 1)
        return _takeover(array.network, array.host("a"), array.host("b"))


def _keepalived(bench: Bench, interval_s: float) -> Row:
    with Network() as network:
        for place, (name, address) in enumerate(PAIR.items()):
            host = network.add(name, f"{address}/24")
            config = bench.folder / f"keepalived-{name}.conf"
            config.write_text(
                "global_defs {\n  vrrp_version 3\n}\nvrrp_instance v {\n  state BACKUP\n  interface eth0\n"
                f"  virtual_router_id 51\n  priority {150 - 20 * place}\n  advert_int {interval_s}\n"
                f"  virtual_ipaddress {{\n    {VIP}/24\n  }}\n}}\n"
            )
            pids = [f"--{kind}pid={bench.folder}/{kind or 'main'}-{name}.pid" for kind in ("", "vrrp_", "checkers_")]
            with (bench.folder / f"keepalived-{name}.log").open("wb") as log:
                host.start("keepalived", "-n", "-l", "-D", "-P", "-f", str(config), *pids, log=log)
        owner, other = network.hosts["a"], network.hosts["b"]
        wait_for(lambda: owner.has_address(VIP), "keepalived's owner", 15, 0.1)
        time.sleep(4 * interval_s + 1)
        return _takeover(network, owner, other)


if __name__ == "__main__":
    main()
