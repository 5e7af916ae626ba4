"""What a configuration will do, in words: what ``lbarray check`` prints for a good one."""

from __future__ import annotations

from lbarray.config.model import Config
from lbarray.config.pools import Persistence
from lbarray.config.routes import Route

__all__ = ["summary"]


def summary(config: Config) -> str:
    """A few lines for a person."""
    array = config.array
    lines: list[str] = []
    if config.standalone:
        lines.append(f"{array.name}: one standalone node, no VIP")
    else:
        vips = ", ".join(str(vip.ip) for vip in array.vips)
        lines.append(f"{array.name}: {len(array.nodes)} nodes share {vips}")
        ranked = sorted(array.nodes.items(), key=lambda item: (item[1].priority, item[1].address), reverse=True)
        for name, node in ranked:
            lines.append(f"  node {name}  {node.address} on {config.interface_of(node)}, priority {node.priority}")
        first = ranked[0][0]
        if config.failover.mode == "bgp":
            lines.append(f"  each that can serve announces them, by addresses on {config.bgp.interface} (BGP)")
        else:
            lines.append(
                f"  {first} becomes scheduler first; a dead one is replaced within "
                f"{4 * config.failover.interval:g} s (VRRP, router {config.failover.virtual_router_id})"
            )
    for name in config.services:
        service = config.services[name]
        kind = f"TLS with {service.tls.certificate}" if service.tls else "plain"
        plane = config.plane_service(name)
        by = plane.hash_by.name.lower() + (" to the less loaded of two" if plane.least_loaded else "")
        spread = "" if config.standalone else f", spread over the workers by {by}"
        lines.append(f"service {name}  {config.service_id(name)}, {kind}{spread}")
    for name, pool in config.pools.items():
        check = f"checked by {pool.check.kind} every {pool.check.interval:g} s" if pool.check else "not checked"
        pinned = f", {_pinned(pool.persistence)}" if pool.persistence else ""
        lines.append(f"pool {name}  {pool.policy}, {check}{pinned}")
        for member, backend in pool.backends.items():
            backup = ", backup" if backend.backup else ""
            lines.append(f"  back end {member}  {backend.address}, weight {backend.weight}{backup}")
        if pool.discover is not None:
            lines.append(f"  back ends of the name {pool.discover.name}, asked again by its time to live")
    for route in config.routes:
        where = f" of {', '.join(route.services)}" if route.services else ""
        lines.append(f"route  {_matched(route)}{where} {_goal(route)}")
    if not config.routes:
        lines.append(f"route  everything to pool {next(iter(config.pools))}")
    if config.cdn:
        cdn = config.cdn
        scheme = "" if cdn.scheme == "relative" else f"{cdn.scheme}:"
        what = " ".join((*cdn.paths, *cdn.globs))
        lines.append(f"cdn  {what} in pages become {scheme}//{' or '.join(cdn.every_host)}/…")
    for each in config.filters:
        lines.append(f"filter {each.use}  for {each.host}{each.path}")
    lines.append(f"console  http://{config.console.status}/status")
    return "\n".join(lines)


def _pinned(persistence: Persistence) -> str:
    if persistence.kind == "cookie":
        return f"pinned by the cookie {persistence.cookie}"
    if persistence.kind == "hash":
        return f"pinned by {persistence.by} in {persistence.groups} groups"
    if persistence.kind == "tls":
        return "pinned by the TLS session, without one by the client's address"
    named = (persistence.session_cookie, persistence.session_header, persistence.session_query)
    return f"pinned by the session id in {', '.join(name for name in named if name)}"


def _matched(route: Route) -> str:
    if route.path_regex is not None:
        path = f" ~{route.path_regex}"
    else:
        path = f"={route.path_exact}" if route.path_exact is not None else route.path
    conditions = [*route.methods, *(str(network) for network in route.networks)]
    conditions += [f"{name}: {value}" for name, value in route.headers.items()]
    conditions += [f"?{name}={value}" for name, value in route.query.items()]
    return f"{route.host}{path}" + (f" with {', '.join(conditions)}" if conditions else "")


def _goal(route: Route) -> str:
    if route.redirect is not None:
        return f"is redirected to {route.redirect.to} ({route.redirect.status})"
    if route.answer is not None:
        return f"is answered with {route.answer.status}"
    if route.split:
        return "to pools " + ", ".join(f"{name} {weight}" for name, weight in route.split.items())
    mirrored = f", mirrored to {route.mirror.pool}" if route.mirror is not None else ""
    return f"to pool {route.pool}{mirrored}"
