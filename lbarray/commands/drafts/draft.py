"""What a configuration is to say, and the commented TOML that says it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_interface

import attrs

__all__ = ["Draft", "DraftCheck", "DraftPool", "DraftRoute", "DraftService", "name_of"]


def name_of(text: str) -> str:
    """A name as configurations want it, made of any text."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60] or "unnamed"


@attrs.define
class DraftService:
    """An address and port for clients; with a certificate it is TLS."""

    name: str
    address: str
    port: int
    certificate: str = ""
    key: str = ""


@attrs.define
class DraftCheck:
    """How back ends are watched. Durations in seconds; ``None``: as usual."""

    kind: str = "tcp"
    path: str = "/"
    interval: float | None = None
    rise: int | None = None
    fall: int | None = None


@attrs.define
class DraftPool:
    """Back ends: ``host:port`` and weight by name. ``cookie``: of persistence; ``stick``: other keys of it."""

    name: str
    backends: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    policy: str = "round-robin"
    check: DraftCheck | None = None
    cookie: str = ""
    stick: dict[str, str] = attrs.field(factory=dict)
    tls: bool = False


@attrs.define
class DraftRoute:
    """Which requests go to which pool."""

    pool: str
    host: str = "*"
    path: str = "/"
    services: list[str] = attrs.field(factory=list)


@attrs.define
class Draft:
    """The whole.

    :ivar nodes: address and priority by name; none: one standalone node.
    :ivar worker: keys of ``[worker]`` with seconds.
    :ivar notes: what a person must still look at.
    """

    source: str = ""
    name: str = "lbarray"
    interface: str = "eth0"
    nodes: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    vips: list[str] = attrs.field(factory=list)
    router_id: int = 51
    interval: float | None = None
    services: list[DraftService] = attrs.field(factory=list)
    pools: list[DraftPool] = attrs.field(factory=list)
    routes: list[DraftRoute] = attrs.field(factory=list)
    worker: dict[str, float] = attrs.field(factory=dict)
    state_dir: str = ""
    notes: list[str] = attrs.field(factory=list)

    def to_toml(self) -> str:
        """The file."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# A configuration of lbarray, written by: lbarray {self.source}"
        yield "# Look it over, then: lbarray check FILE; lbarray doctor FILE"
        if self.notes:
            yield "#"
            yield "# Still to be looked at:"
            yield from (f"# - {note}" for note in self.notes)
        yield from self._array()
        for service in self.services:
            yield from self._service(service)
        for pool in self.pools:
            yield from self._pool(pool)
        yield from self._routes()
        if self.worker:
            yield from ("", "[worker]")
            yield from (f"{key} = {_seconds(value)}" for key, value in self.worker.items())
        yield from (
            "",
            "[console]",
            'status = "127.0.0.1:9080"       # the dashboard: http://127.0.0.1:9080/ on each node',
            '# token_file = "api.token"      # openssl rand -hex 32 > api.token; chmod 600: drains from the dashboard',
            '# manhole = { authorized_keys = "/root/.ssh/authorized_keys" }   # ssh -p 4722 admin@127.0.0.1',
        )

    def _array(self) -> Iterator[str]:
        yield from ("", "[array]", f"name = {_quoted(self.name)}")
        if self.state_dir:
            yield f"state_dir = {_quoted(self.state_dir)}"
        if not self.nodes:
            return
        yield 'key_file = "array.key"          # the same on every node, for its owner only (chmod 600)'
        yield f"interface = {_quoted(self.interface)}              # where the nodes meet their clients"
        yield f"vips = [{', '.join(_quoted(vip) for vip in self.vips)}]"
        for name, (address, priority) in self.nodes.items():
            yield from ("", f"[array.nodes.{_key(name)}]", f"address = {_quoted(address)}")
            yield f"priority = {priority}                  # the highest that lives owns the VIP"
        yield from ("", "[failover]", f"virtual_router_id = {self.router_id}          # its own in the segment")
        if self.interval is not None:
            yield f"interval = {_seconds(self.interval)}"

    def _service(self, service: DraftService) -> Iterator[str]:
        where = "vip" if self.nodes else "address"
        yield from ("", f"[services.{_key(service.name)}]", f"{where} = {_quoted(service.address)}")
        yield f"port = {service.port}"
        if service.certificate:
            key = f", key = {_quoted(service.key)}" if service.key else ""
            yield f"tls = {{ certificate = {_quoted(service.certificate)}{key} }}"

    @staticmethod
    def _pool(pool: DraftPool) -> Iterator[str]:
        yield from ("", f"[pools.{_key(pool.name)}]", f"policy = {_quoted(pool.policy)}")
        check = pool.check
        if check is not None:
            parts = [f"kind = {_quoted(check.kind)}"]
            if check.kind == "http":
                parts.append(f"path = {_quoted(check.path)}")
            if check.interval is not None:
                parts.append(f"interval = {_seconds(check.interval)}")
            parts += [f"{key} = {value}" for key in ("rise", "fall") if (value := getattr(check, key)) is not None]
            yield f"check = {{ {', '.join(parts)} }}"
        if pool.cookie:
            yield f"persistence = {{ cookie = {_quoted(pool.cookie)} }}   # a client comes back to its back end"
        elif pool.stick:
            keys = ", ".join(f"{key} = {_quoted(value)}" for key, value in pool.stick.items())
            yield f"persistence = {{ {keys} }}   # a client comes back to its back end"
        if pool.tls:
            yield "tls = { }                       # back ends are met over TLS and must prove their names"
        yield from ("", f"[pools.{_key(pool.name)}.backends]")
        for name, (address, weight) in pool.backends.items():
            more = f", weight = {weight}" if weight != 1 else ""
            yield f"{_key(name)} = {{ address = {_quoted(address)}{more} }}"

    def _routes(self) -> Iterator[str]:
        for route in self.routes:
            yield from ("", "[[routes]]", f"pool = {_quoted(route.pool)}")
            if route.host != "*":
                yield f"host = {_quoted(route.host)}"
            if route.path != "/":
                yield f"path = {_quoted(route.path)}"
            if route.services:
                yield f"services = [{', '.join(_quoted(name) for name in route.services)}]"

    def add_vip(self, address: str) -> None:
        """One more address that the array offers, unless it is there."""
        if ip_interface(address).ip not in [ip_interface(vip).ip for vip in self.vips]:
            self.vips.append(address)


def _quoted(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if c < " " or c == "\x7f" else f"\\{c}" if c in '"\\' else c for c in text)
    return f'"{escaped}"'


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _seconds(value: float) -> str:
    return _quoted(f"{value:g}s" if value >= 1 else f"{value * 1000:g}ms")
