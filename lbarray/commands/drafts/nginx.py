"""From ``nginx.conf``: servers that proxy to upstreams."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from lbarray.commands.drafts.blocks import Directive, read_blocks
from lbarray.commands.drafts.draft import Draft, DraftCheck, DraftPool, DraftRoute, DraftService, name_of

__all__ = ["from_nginx"]

#: What lbarray does anyway, or what is the business of its own daemon.
_IMPLIED: Final = (
    "proxy_set_header", "proxy_http_version", "access_log", "error_log", "server_name", "listen", "location", "server",
    "keepalive", "ssl_certificate", "ssl_certificate_key", "proxy_pass", "include", "default_type", "sendfile",
    "keepalive_timeout", "tcp_nopush", "tcp_nodelay", "types_hash_max_size", "upstream", "gzip", "ssl_protocols",
    "ssl_prefer_server_ciphers", "ssl_session_cache", "ssl_session_timeout", "log_format", "types", "zone",
    "server_tokens", "keepalive_requests",
)  # fmt: skip
_TIMEOUTS: Final = {
    "proxy_connect_timeout": "connect_timeout",
    "proxy_read_timeout": "response_timeout",
    "client_header_timeout": "header_timeout",
}
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class _Converter:
    def __init__(self) -> None:
        self.draft = Draft(source="convert nginx.conf")

    def convert(self, text: str) -> Draft:
        top = read_blocks(text)
        inside = [inner for one in top if one.name == "http" for inner in one.block or ()] or top
        for one in inside:
            if one.name == "upstream" and len(one.words) > 1:
                self._upstream(one)
        for one in inside:
            if one.name == "server" and one.block is not None:
                self._server(one)
            else:
                self._other(one)
        if any(one.name == "stream" for one in top):
            self.draft.notes.append("stream { }: only HTTP is served, left out")
        return self.draft

    def note(self, one: Directive, why: str = "has no counterpart here, left out") -> None:
        self.draft.notes.append(f"{one} {why}")

    def _other(self, one: Directive) -> None:
        if one.name in _TIMEOUTS and len(one.words) > 1:
            match = re.fullmatch(r"(\d+)(ms|s|m|h)?", one.words[1])
            if match:
                self.draft.worker.setdefault(_TIMEOUTS[one.name], int(match[1]) * _UNITS[match[2] or ""])
        elif one.name not in _IMPLIED:
            self.note(one)

    # Upstreams

    def _upstream(self, one: Directive) -> None:
        pool = DraftPool(name_of(one.words[1]), check=DraftCheck())
        for inner in one.block or ():
            if inner.name == "server" and len(inner.words) > 1:
                self._member(pool, inner)
            elif inner.name == "least_conn":
                pool.policy = "least-outstanding"
            elif inner.name in ("ip_hash", "sticky"):
                pool.cookie = "LBARRAY"
                self.note(inner, "became a cookie, which also holds where clients share an address")
            elif inner.name not in _IMPLIED:
                self.note(inner)
        if pool.backends:
            self.draft.pools.append(pool)

    def _member(self, pool: DraftPool, one: Directive) -> None:
        place, options = one.words[1], one.words[2:]
        if place.startswith("unix:"):
            self.note(one, "is a Unix socket, left out")
            return
        if not re.search(r":\d+\Z", place):
            place += ":80"
        weight = 1
        for option in options:
            key, _, value = option.partition("=")
            if key == "weight" and value.isdecimal():
                weight = min(max(int(value), 1), 1000)
            elif option == "down":
                self.note(one, "is down, left out")
                return
            elif option == "backup":
                self.note(one, "is a backup: it became a member like the others")
        pool.backends[f"w{len(pool.backends) + 1}"] = (place, weight)

    # Servers

    def _server(self, one: Directive) -> None:
        names = [self._listen(one, listen) for listen in one.all("listen")]
        services = [name for name in names if name]
        hosts = [host for inner in one.all("server_name") for host in inner.words[1:]] or ["*"]
        for location in one.all("location"):
            self._location(location, hosts, services)
        for inner in one.block or ():
            if inner.name == "return":
                self.note(inner, "answers by itself: redirects are left out")
            else:
                self._other(inner)

    def _listen(self, server: Directive, one: Directive) -> str:
        place, options = [*one.words, ""][1], one.words[2:]
        host, _, port = place.rpartition(":")
        if not port.isdecimal():
            host, port = port, "80"
        host = host.strip("[]")
        try:
            address = str(ip_address(host)) if host and host != "*" else "0.0.0.0"
        except ValueError:
            self.note(one, "is no IP address, left out")
            return ""
        for service in self.draft.services:
            if (service.address, service.port) == (address, int(port)):
                if server.value("ssl_certificate") not in ("", service.certificate):
                    self.note(one, f"has a certificate of its own: add it to services.{service.name}.tls.certificates")
                return service.name
        tls = "ssl" in options
        name = f"{'https' if tls else 'http'}{'' if port in ('80', '443') else f'-{port}'}"
        if any(service.name == name for service in self.draft.services):
            name += f"-{len(self.draft.services)}"
        certificate = server.value("ssl_certificate") if tls else ""
        key = server.value("ssl_certificate_key") if tls else ""
        if tls and not certificate:
            self.note(
                one, "names no certificate in its server { }: give the service tls = { certificate = …, key = … }"
            )
        self.draft.services.append(DraftService(name, address, int(port), certificate, key))
        return name

    def _location(self, one: Directive, hosts: list[str], services: list[str]) -> None:
        words = [word for word in one.words[1:] if word != "^~"]
        if len(words) != 1 or not words[0].startswith("/"):
            self.note(one, "is no prefix: routes go by prefixes, left out")
            return
        target = one.value("proxy_pass")
        match = re.fullmatch(r"(https?)://([^/$]+)(/.*)?", target)
        if match is None:
            self.note(one, "does not proxy to a fixed place: left out")
            return
        scheme, place, path = match.groups()
        if path not in (None, "/") or (path == "/" and words[0] != "/"):
            self.note(one, f"changes the path to {path}: here paths go on as they came")
        pool = self._target(scheme, place)
        for host in hosts:
            if host.startswith("~"):
                self.draft.notes.append(f"{one}: the host {host} is a pattern, left out")
                continue
            meant = {"_": "*", "": "*"}.get(host, f"*{host}" if host.startswith(".") else host)
            self.draft.routes.append(DraftRoute(pool, meant, words[0], list(services)))
        for inner in one.block or ():
            self._other(inner)

    def _target(self, scheme: str, place: str) -> str:
        pool = next((pool for pool in self.draft.pools if pool.name == name_of(place)), None)
        if pool is None:
            address = place if re.search(r":\d+\Z", place) else f"{place}:{443 if scheme == 'https' else 80}"
            pool = DraftPool(name_of(place), {"w1": (address, 1)}, check=DraftCheck())
            self.draft.pools.append(pool)
        pool.tls = pool.tls or scheme == "https"
        return pool.name


def from_nginx(text: str) -> Draft:
    """What an ``nginx.conf`` proxies, as far as it can be said here; the rest is in the notes, line by line.

    :raises NotReadable: it is no such file.
    """
    return _Converter().convert(text)
