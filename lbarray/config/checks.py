"""What single values cannot show: references between sections, and files on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from lbarray.config.model import Config
from lbarray.config.problems import nearest
from lbarray.config.routers import wrong_routers
from lbarray.config.routes import Route
from lbarray.config.services import Service, Tls
from lbarray.errors import Problem

#: What a packet plane has room for.
MOST_NODES, MOST_SERVICES = 256, 64
#: What texts may name of a request, between braces.
VARIABLES = ("scheme", "host", "path", "query", "target", "client")
_BRACES = re.compile(r"\{([a-z]*)\}")

__all__ = ["MOST_NODES", "MOST_SERVICES", "missing_files", "wrong_meaning"]


def wrong_meaning(config: Config) -> list[Problem]:
    """Every contradiction between sections."""
    return [*_array(config), *_services(config), *_pools(config), *_routes(config), *_cdn(config), *_console(config)]


def _array(config: Config) -> Iterator[Problem]:
    array = config.array
    if array.nodes and array.key_file is None:
        yield Problem(
            "array.key_file",
            "nothing",
            "the path of a file with a shared secret (make one: openssl rand -hex 32), "
            "needed as soon as there are nodes",
        )
    if array.nodes and not array.vips:
        yield Problem("array.vips", "an empty list", "at least one address that clients use")
    if len(array.nodes) > MOST_NODES:
        yield Problem("array.nodes", f"{len(array.nodes)} of them", f"{MOST_NODES} at most")
    if array.nodes and len(config.services) > MOST_SERVICES:
        yield Problem("services", f"{len(config.services)} of them", f"{MOST_SERVICES} at most in an array")
    if array.vips and not array.nodes:
        yield Problem(
            "array.vips",
            "addresses, but no array.nodes",
            "no vips in a standalone node; or the machines that share them, in array.nodes",
        )
    seen: dict[str, str] = {}
    for name, node in array.nodes.items():
        other = seen.setdefault(str(node.address), name)
        if other != name:
            yield Problem(
                f"array.nodes.{name}.address",
                f'"{node.address}", the same as node {other}',
                "its own address",
            )
        if node.address6 is not None and node.address6.version == 4:
            yield Problem(f"array.nodes.{name}.address6", f'"{node.address6}"', "its IPv6 address")
        if any(node.address == vip.ip for vip in array.vips):
            yield Problem(f"array.nodes.{name}.address", f'"{node.address}", which is a VIP', "the node's own address")
    yield from _unicast(config)
    yield from wrong_routers(array, config.failover)
    taken = {"lo", *(config.interface_of(node) for node in array.nodes.values())}
    if config.failover.mode == "bgp" and config.bgp.interface in taken:
        found = f'"{config.bgp.interface}", which the machines have'
        yield Problem("bgp.interface", found, "a name of its own: the node makes the interface and removes it")


def _unicast(config: Config) -> Iterator[Problem]:
    """Each node needs an address of each family that is advertised to it."""
    versions = {vip.version for vip in config.array.vips} if config.failover.unicast else set()
    for name, node in config.array.nodes.items():
        if 6 in versions and node.address.version == 4 and node.address6 is None:
            yield Problem(f"array.nodes.{name}.address6", "nothing", "its IPv6 address, for failover.unicast")
        if 4 in versions and node.address.version == 6:
            found = f'"{node.address}"'
            yield Problem(f"array.nodes.{name}.address", found, "an IPv4 address, for failover.unicast with IPv4 VIPs")


def _services(config: Config) -> Iterator[Problem]:
    if not config.services:
        yield Problem("services", "none", "at least one table [services.NAME]")
    places: dict[tuple[str, int], str] = {}
    for name, service in config.services.items():
        yield from _service_place(config, name, service)
        if service.tls is not None:
            yield from _tls(name, service.tls)
        place = (str(service.vip or service.address), service.port)
        other = places.setdefault(place, name)
        if other != name:
            yield Problem(
                f"services.{name}.port",
                f"{service.port} at {place[0]}, already taken by services.{other}",
                "an address and port of its own",
            )


def _tls(name: str, tls: Tls) -> Iterator[Problem]:
    key = f"services.{name}.tls"
    if tls.client_certificates != "off" and tls.client_ca is None:
        yield Problem(f"{key}.client_ca", "nothing", "a PEM file with the authorities of client certificates")


def _service_place(config: Config, name: str, service: Service) -> Iterator[Problem]:
    key = f"services.{name}"
    vips = ", ".join(f'"{vip.ip}"' for vip in config.array.vips)
    if config.standalone:
        if service.vip is not None:
            yield Problem(f"{key}.vip", f'"{service.vip}"', "no vip without array.nodes; use address instead")
        elif service.address is None:
            yield Problem(f"{key}.address", "nothing", 'the address to listen on, such as "127.0.0.1"')
    elif service.address is not None:
        yield Problem(
            f"{key}.address",
            f'"{service.address}"',
            f"no address in an array; use vip instead, one of: {vips}",
        )
    elif service.vip is None or all(service.vip != vip.ip for vip in config.array.vips):
        found = "nothing" if service.vip is None else f'"{service.vip}"'
        yield Problem(f"{key}.vip", found, f"one of array.vips: {vips}")


def _pools(config: Config) -> Iterator[Problem]:
    if not config.pools:
        yield Problem("pools", "none", "at least one table [pools.NAME]")
    for name, pool in config.pools.items():
        key = f"pools.{name}"
        if not pool.backends and pool.discover is None:
            yield Problem(f"{key}.backends", "none", f"at least one table [{key}.backends.NAME], or [{key}.discover]")
        if pool.check is not None and pool.check.kind == "script" and not pool.check.command:
            yield Problem(f"{key}.check.command", "nothing", "the program that a check of kind script runs")
        kept = pool.persistence
        names = (kept.session_cookie, kept.session_header, kept.session_query) if kept is not None else ()
        if kept is not None and kept.kind == "learnt" and not any(names):
            yield Problem(
                f"{key}.persistence",
                "nothing that says where the session id is",
                "at least one of session_cookie, session_header and session_query",
            )
        if kept is not None and kept.kind == "tls" and not any(each.tls for each in config.services.values()):
            yield Problem(f"{key}.persistence.kind", '"tls", and no service speaks TLS', "cookie, learnt or hash")
        if kept is not None and kept.same_site == "None" and kept.secure is False:
            yield Problem(f"{key}.persistence.secure", "false", "true: browsers drop SameSite=None without Secure")
        if pool.eject.longest < pool.eject.base:
            yield Problem(f"{key}.eject.longest", f"{pool.eject.longest:g} s", f"base ({pool.eject.base:g} s) or more")


def _routes(config: Config) -> Iterator[Problem]:
    if not config.routes and len(config.pools) > 1:
        yield Problem("routes", "none, with several pools", "[[routes]] that say which request goes to which pool")
    for index, route in enumerate(config.routes):
        key = f"routes[{index}]"
        goals = {
            "pool": route.pool,
            "split": route.split or None,
            "redirect": route.redirect,
            "answer": route.answer,
        }
        given = [name for name, value in goals.items() if value is not None]
        if len(given) != 1:
            yield Problem(key, " and ".join(given) or "nothing", "exactly one of pool, split, redirect and answer")
        named = [(f"{key}.pool", route.pool), *((f"{key}.split", name) for name in route.split)]
        if route.mirror is not None:
            named.append((f"{key}.mirror.pool", route.mirror.pool))
        for place, pool in named:
            if pool is not None and pool not in config.pools:
                yield Problem(place, f'"{pool}"', nearest(pool, config.pools))
        if route.split and not any(route.split.values()):
            yield Problem(f"{key}.split", "only weights of 0", "a weight above 0 for at least one pool")
        for service in route.services:
            if service not in config.services:
                yield Problem(f"{key}.services", f'"{service}"', nearest(service, config.services))
        yield from _route_paths(key, route)


def _route_paths(key: str, route: Route) -> Iterator[Problem]:
    if route.path_exact is not None and route.path_regex is not None:
        yield Problem(f"{key}.path_regex", "with path_exact", "one of path, path_exact and path_regex")
    elif route.path != "/" and (route.path_exact or route.path_regex):
        yield Problem(f"{key}.path", "with path_exact or path_regex", "one of path, path_exact and path_regex")
    rewrite = route.rewrite
    if rewrite is not None and (rewrite.prefix is None) == (rewrite.regex is None):
        yield Problem(f"{key}.rewrite", "prefix and regex, or neither", "one of prefix and regex")
    if rewrite is not None and rewrite.prefix is not None and (route.path_exact or route.path_regex):
        yield Problem(f"{key}.rewrite.prefix", "without path", "regex: there is no prefix that it could replace")
    texts = [(f"{key}.redirect.to", route.redirect.to)] if route.redirect is not None else []
    for section, edits in (("request_fields", route.request_fields), ("response_fields", route.response_fields)):
        for what, fields in (("set", edits.set), ("add", edits.add)):
            texts += [(f"{key}.{section}.{what}.{name}", text) for name, text in fields.items()]
    for place, text in texts:
        names = _BRACES.findall(text)
        known = () if ".response_fields." in place else VARIABLES
        for name in names:
            if name not in known:
                accepted = ", ".join(f"{{{each}}}" for each in known) or "a text without {names}"
                yield Problem(place, f'"{text}"', accepted)


def _cdn(config: Config) -> Iterator[Problem]:
    cdn = config.cdn
    if cdn is None:
        return
    if bool(cdn.host) == bool(cdn.hosts):
        found = "both host and hosts" if cdn.host else "nothing"
        yield Problem("cdn.host", found, "the network's host name here; or, when it has several, a list in cdn.hosts")
    if not cdn.paths and not cdn.globs:
        yield Problem("cdn.paths", "nothing", "what the network serves: prefixes here, or patterns in cdn.globs")
    for place, name in enumerate(cdn.hosts):
        if name in cdn.hosts[:place]:
            yield Problem(f"cdn.hosts[{place}]", f'"{name}", for the second time', "each host once")
    if cdn.max_size and cdn.max_size < cdn.min_size:
        yield Problem("cdn.max_size", f"{cdn.max_size}, below cdn.min_size", "0, or at least cdn.min_size")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _console(config: Config) -> Iterator[Problem]:
    console = config.console
    if not _is_loopback(console.status.host):
        if console.tls is None:
            yield Problem(
                "console.status",
                f'"{console.status}", which others can reach, without console.tls',
                "an address of loopback; or console.tls, so that no token is sent in the clear",
            )
        elif console.token_file is None and console.tls.client_ca is None:
            yield Problem(
                "console.tls",
                "neither client_ca nor console.token_file",
                "at least one of the two: without them nobody could ask anything",
            )
    manhole = config.console.manhole
    if manhole is not None and manhole.authorized_keys is None and manhole.password_file is None:
        yield Problem(
            "console.manhole",
            "neither authorized_keys nor password_file",
            "at least one of the two, or no manhole",
        )


def missing_files(config: Config) -> list[Problem]:
    """Every file that the configuration names and this machine cannot read, or should not."""
    return [problem for key, path, what in _files(config) if (problem := _unreadable(key, path, what))]


def _files(config: Config) -> Iterator[tuple[str, Path, str]]:
    if config.array.key_file is not None:
        yield "array.key_file", config.array.key_file, "a file with the array's shared secret"
    for place, path in enumerate(config.array.accepted_key_files):
        yield f"array.accepted_key_files[{place}]", path, "a file with a shared secret"
    for name, service in config.services.items():
        if service.tls is not None:
            yield from _tls_files(f"services.{name}.tls", service.tls)
    for name, pool in config.pools.items():
        if pool.tls is not None:
            for key, pem in (("ca", pool.tls.ca), ("certificate", pool.tls.certificate), ("key", pool.tls.key)):
                if pem is not None:
                    yield f"pools.{name}.tls.{key}", pem, "a file in PEM"
    if config.console.tls is not None:
        yield "console.tls.certificate", config.console.tls.certificate, "a certificate chain in PEM"
        yield "console.tls.key", config.console.tls.key, "the certificate's private key in PEM"
        if config.console.tls.client_ca is not None:
            yield "console.tls.client_ca", config.console.tls.client_ca, "certificates of authorities in PEM"
    if config.console.token_file is not None:
        yield "console.token_file", config.console.token_file, "a file whose first line is the API's token"
    if config.tracing.token_file is not None:
        yield "tracing.token_file", config.tracing.token_file, "a file whose first line is the collector's token"
    manhole = config.console.manhole
    if manhole is not None and manhole.authorized_keys is not None:
        yield "console.manhole.authorized_keys", manhole.authorized_keys, "a file of SSH public keys"
    if manhole is not None and manhole.password_file is not None:
        yield (
            "console.manhole.password_file",
            manhole.password_file,
            "a file whose first line is the password",
        )


def _tls_files(key: str, tls: Tls) -> Iterator[tuple[str, Path, str]]:
    for place, files in ((key, tls), *((f"{key}.certificates[{n}]", each) for n, each in enumerate(tls.certificates))):
        yield f"{place}.certificate", files.certificate, "a certificate chain in PEM"
        if files.key is not None:
            yield f"{place}.key", files.key, "the certificate's private key in PEM"
    if tls.client_ca is not None:
        yield f"{key}.client_ca", tls.client_ca, "certificates of authorities in PEM"


def _unreadable(key: str, path: Path, what: str) -> Problem | None:
    try:
        with path.open("rb") as file:
            octets = file.read(64)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        return Problem(key, f'"{path}": {error.strerror}', f"{what}, readable by this user")
    if not octets.strip():
        return Problem(key, f'"{path}": an empty file', what)
    if key in ("array.key_file", "console.token_file") or key.startswith("array.accepted_key_files"):
        if len(path.read_bytes().split(b"\n", 1)[0].strip()) < 16:
            return Problem(key, f'"{path}": fewer than 16 octets', what + " (openssl rand -hex 32)")
        if mode & 0o007:
            return Problem(key, f'"{path}": every user of this machine can read it', f"chmod 600 {path}")
    return None
