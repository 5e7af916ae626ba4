"""Packets that the local stack must not see, because a process handles them: an nftables ingress chain drops them.

Packet sockets see a frame before that chain does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection

from lbarray.errors import SystemRefused
from lbarray.kernel.frames import GUE_PORT
from lbarray.values import Address

__all__ = ["hide", "show_again"]

TABLE = "lbarray_packet"


def hide(interface: str, addresses: Collection[Address], tunnels: Collection[Address] = ()) -> None:
    """Keep IP packets to exactly these addresses that come in by ``interface`` from the local stack, and those from
    ``tunnels`` that have others in them (IPIP, GUE).

    Neighbour discovery is not touched: the kernel answers it. Takes some milliseconds.

    :raises SystemRefused: nft is missing or says no.
    """
    rules = ""
    for family, version in (("ip", 4), ("ip6", 6)):
        listed = ", ".join(str(address) for address in addresses if address.version == version)
        if listed:
            rules += f"    {family} daddr {{ {listed} }} drop\n"
        listed = ", ".join(str(address) for address in tunnels if address.version == version)
        if listed:
            header = "ip protocol" if version == 4 else "ip6 nexthdr"
            rules += f"    {family} saddr {{ {listed} }} {header} {{ 4, 41 }} drop\n"
            rules += f"    {family} saddr {{ {listed} }} udp dport {GUE_PORT} drop\n"
    script = f"table netdev {TABLE}\ndelete table netdev {TABLE}\n"
    if rules:
        script += (
            f"table netdev {TABLE} {{\n  chain hide {{\n"
            f'    type filter hook ingress device "{interface}" priority -10; policy accept;\n'
            f"    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n{rules}  }}\n}}\n"
        )
    _nft(script)


def show_again() -> None:
    """Hide nothing. Idempotent.

    :raises SystemRefused: nft says no.
    """
    _nft(f"table netdev {TABLE}\ndelete table netdev {TABLE}\n")


def _nft(script: str) -> None:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemRefused(
            "hide the VIPs from the local stack", detail=f"nft: {error}", advice="apt-get install nftables"
        ) from None
    if done.returncode:
        raise SystemRefused(
            "hide the VIPs from the local stack",
            detail=done.stderr.strip()[-500:],
            advice="run the node as root (CAP_NET_ADMIN), on a kernel with CONFIG_NF_TABLES_NETDEV",
        )
