"""Drops what is sent to an address and belongs to no service (nftables, through its own program)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from lbarray.errors import SystemRefused
from lbarray.values import Address, ServiceId

__all__ = ["accept_only", "remove_table"]

_ADVICE = "apt-get install nftables, and run the node as root (CAP_NET_ADMIN); or set failover.accept = true"


def accept_only(table: str, addresses: Iterable[Address], services: Iterable[ServiceId]) -> None:
    """Of packets to ``addresses`` let in those of ``services``, and neighbour discovery; drop the others.

    One nftables table, replaced as a whole. Error messages (ICMP) about our own connections are let in too: path MTU
    discovery lives by them.

    :raises SystemRefused: the kernel would not, or there is no ``nft``.
    """
    rules = [
        "iif lo accept",  # this machine's own checks
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, destination-unreachable, packet-too-big, "
        "time-exceeded, parameter-problem } accept",
        "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
    ]
    for service in services:
        family = "ip6" if service.address.version == 6 else "ip"
        rules.append(f"{family} daddr {service.address} {service.protocol} dport {service.port} accept")
    for address in addresses:
        rules.append(f"{'ip6' if address.version == 6 else 'ip'} daddr {address} counter drop")
    body = "\n".join(f"    {rule}" for rule in rules)
    chain = f"  chain input {{\n    type filter hook input priority 0; policy accept;\n{body}\n  }}\n"
    _nft(
        f"table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n{chain}}}\n",
        f"drop what is sent to VIPs and belongs to no service (table inet {table})",
    )


def remove_table(table: str) -> None:
    """Remove what :func:`accept_only` made; nothing happens when there is none.

    :raises SystemRefused: the kernel would not.
    """
    if shutil.which("nft") is not None:
        _nft(f"table inet {table} {{}}\ndelete table inet {table}\n", f"remove the nftables table inet {table}")


def _nft(script: str, tried: str) -> None:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemRefused(tried, detail=str(error), advice=_ADVICE) from None
    if done.returncode:
        raise SystemRefused(tried, detail=done.stderr.strip()[:500], advice=_ADVICE)
