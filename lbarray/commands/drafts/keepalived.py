"""From ``keepalived.conf``: the virtual router, and the virtual servers as services and pools."""

from __future__ import annotations

from typing import Final

from lbarray.commands.drafts.blocks import Directive, read_blocks
from lbarray.commands.drafts.draft import Draft, DraftCheck, DraftPool, DraftRoute, DraftService, name_of

__all__ = ["from_keepalived"]

_POLICIES: Final = {"rr": "round-robin", "wrr": "round-robin", "lc": "least-outstanding", "wlc": "least-outstanding"}
_KNOWN: Final = (
    "state", "interface", "virtual_router_id", "priority", "advert_int", "virtual_ipaddress", "unicast_src_ip",
    "unicast_peer", "version", "nopreempt", "preempt_delay", "garp_master_delay", "dont_track_primary",
)  # fmt: skip


class _Converter:
    def __init__(self) -> None:
        self.draft = Draft(source="convert keepalived.conf")

    def note(self, one: Directive, why: str = "has no counterpart here, left out") -> None:
        self.draft.notes.append(f"{one} {why}")

    def convert(self, text: str) -> Draft:
        routers = 0
        for one in read_blocks(text, by_line=True):
            if one.name == "vrrp_instance":
                routers += 1
                self._router(one, routers)
            elif one.name == "virtual_server":
                self._server(one)
            elif one.name not in ("global_defs",):
                self.note(one)
        return self.draft

    def _router(self, one: Directive, number: int) -> None:
        draft = self.draft
        if number > 1:
            self.note(one, "is a second router: its VIPs joined the first; failover.routers keeps them apart")
        else:
            draft.interface = one.value("interface", draft.interface)
            draft.router_id = int(one.value("virtual_router_id", str(draft.router_id)))
            draft.interval = float(one.value("advert_int", "1"))
            priority = int(one.value("priority", "100"))
            own = one.value("unicast_src_ip")
            peers = [inner.name for block in one.all("unicast_peer") for inner in block.block or ()]
            if own:
                draft.nodes["a"] = (own, priority)
                for place, peer in enumerate(peers):
                    draft.nodes[chr(ord("b") + place) if place < 25 else f"n{place}"] = (peer, max(priority - 50, 1))
            else:
                draft.notes.append(
                    "the file does not say who the nodes are: --nodes NAME=ADDRESS,… does, or put their own addresses "
                    "in place of 192.0.2.1 and 192.0.2.2"
                )
                draft.nodes |= {"a": ("192.0.2.1", priority), "b": ("192.0.2.2", max(priority - 50, 1))}
        for block in one.all("virtual_ipaddress"):
            for inner in block.block or ():
                draft.add_vip(inner.name)
        for inner in one.block or ():
            if inner.name == "authentication":
                self.note(
                    inner, "is left out: advertisements are signed with the array's key (failover.authentication)"
                )
            elif inner.name not in _KNOWN:
                self.note(inner)

    def _server(self, one: Directive) -> None:
        if len(one.words) < 3:
            self.note(one, "is no address and port, left out")
            return
        address, port = one.words[1], one.words[2]
        name = name_of(f"http-{port}" if port != "80" else "http")
        while any(service.name == name for service in self.draft.services):
            name += "-2"
        policy = one.value("lb_algo", one.value("lvs_sched", "wrr"))
        pool = DraftPool(f"{name}-servers", policy=_POLICIES.get(policy, "round-robin"))
        if policy not in _POLICIES:
            self.note(one, f"schedules by {policy}: became round-robin, see the policies in the documentation")
        for real in one.all("real_server"):
            if len(real.words) > 2:
                weight = real.value("weight", "1")
                count = len(pool.backends) + 1
                pool.backends[f"w{count}"] = (f"{real.words[1]}:{real.words[2]}", min(max(int(weight), 1), 1000))
                pool.check = pool.check or self._check(real, one)
        if one.value("persistence_timeout"):
            pool.cookie = "LBARRAY"
            self.draft.notes.append(
                f"{one}: persistence became a cookie, which also holds where clients share an address"
            )
        if not pool.backends:
            self.note(one, "has no servers, left out")
            return
        self.draft.add_vip(address)
        self.draft.services.append(DraftService(name, address, int(port)))
        self.draft.pools.append(pool)
        self.draft.routes.append(DraftRoute(pool.name, services=[name]))
        if port == "443":
            self.draft.notes.append(
                f"{one}: TLS ends here now: give services.{name} tls = {{ certificate = …, key = … }}"
            )

    @staticmethod
    def _check(real: Directive, server: Directive) -> DraftCheck | None:
        interval = float(server.value("delay_loop", "2"))
        for kind in ("HTTP_GET", "SSL_GET"):
            for block in real.all(kind):
                path = next((url.value("path", "/") for url in block.all("url")), "/")
                return DraftCheck("http", path, interval)
        return DraftCheck("tcp", interval=interval) if any(real.all("TCP_CHECK")) else None


def from_keepalived(text: str) -> Draft:
    """What a ``keepalived.conf`` says, as far as it can be said here; the rest is in the notes, line by line.

    :raises NotReadable: it is no such file.
    """
    return _Converter().convert(text)
