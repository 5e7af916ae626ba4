"""From ``haproxy.cfg``: frontends, backends and what of them has a counterpart here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

import attrs

from lbarray.commands.drafts.draft import Draft, DraftCheck, DraftPool, DraftRoute, DraftService, name_of

__all__ = ["from_haproxy"]

_SECTIONS: Final = ("global", "defaults", "frontend", "backend", "listen")
_POLICIES: Final = {"roundrobin": "round-robin", "static-rr": "round-robin", "leastconn": "least-outstanding"}
_TIMEOUTS: Final = {
    "connect": "connect_timeout",
    "server": "response_timeout",
    "http-request": "header_timeout",
    "http-keep-alive": "keepalive_timeout",
    "tunnel": "tunnel_timeout",
}
#: What lbarray does anyway, or what is the business of its own daemon.
_IMPLIED: Final = (
    "mode http", "option forwardfor", "option httplog", "option dontlognull", "option http-server-close",
    "option http-keep-alive", "option redispatch", "log", "user", "group", "daemon", "chroot", "maxconn", "nbthread",
    "stats", "pidfile", "ca-base", "crt-base", "ssl-default-bind", "tune", "retries", "errorfile", "timeout client",
    "timeout check", "timeout queue", "description", "ulimit-n",
)  # fmt: skip
#: Words of frontends, which a ``listen`` section has as well.
_FRONTEND: Final = ("bind", "acl", "use_backend", "default_backend")
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1e-3}


@attrs.define
class _Line:
    number: int
    words: list[str]

    def __str__(self) -> str:
        return f"line {self.number}: {' '.join(self.words)}"

    def begins(self, *words: str) -> bool:
        return self.words[: len(words)] == list(words)


@attrs.define
class _Section:
    kind: str
    name: str
    lines: list[_Line] = attrs.field(factory=list)


def seconds(text: str) -> float | None:
    """A duration as HAProxy writes it: milliseconds without a unit. ``None``: it is none."""
    match = re.fullmatch(r"(\d+)(us|ms|s|m|h|d)?", text)
    return int(match[1]) * _UNITS[match[2] or ""] if match else None


def _stick(sample: str) -> dict[str, str]:
    """The keys of persistence that do what ``stick on SAMPLE`` does; none: nothing does."""
    sample = sample.partition(",")[0]
    if sample == "src":
        return {"kind": "hash", "by": "client"}
    if sample == "ssl_fc_session_id":
        return {"kind": "tls"}
    match = re.fullmatch(r"(?:req\.|req_)?(cook|cookie|hdr|urlp|url_param)\(([A-Za-z0-9_.-]{1,63})\)", sample)
    if match is None:
        return {}
    kind, name = match.groups()
    if kind == "hdr":
        return {"kind": "hash", "by": f"header:{name}"}
    return {"kind": "learnt", "session_cookie" if kind.startswith("cook") else "session_query": name}


def _sections(text: str) -> Iterator[_Section]:
    section: _Section | None = None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = line.split()
        if not words:
            continue
        if words[0] in _SECTIONS:
            if section is not None:
                yield section
            section = _Section(words[0], words[1] if len(words) > 1 else "")
        elif section is not None:
            section.lines.append(_Line(number, words))
    if section is not None:
        yield section


class _Converter:
    def __init__(self) -> None:
        self.draft = Draft(source="convert haproxy.cfg")
        self.tcp: list[str] = []
        self.default_tcp = False

    def note(self, line: _Line, why: str = "has no counterpart here, left out") -> None:
        self.draft.notes.append(f"{line} {why}")

    def convert(self, text: str) -> Draft:
        for section in _sections(text):
            if section.kind in ("global", "defaults"):
                self._defaults(section)
            elif any(line.begins("mode", "tcp") for line in section.lines) or (
                self.default_tcp and not any(line.begins("mode", "http") for line in section.lines)
            ):
                self.draft.notes.append(f"{section.kind} {section.name}: mode tcp: only HTTP is served, left out")
            else:
                if section.kind in ("backend", "listen"):
                    self._pool(section)
                if section.kind in ("frontend", "listen"):
                    self._frontend(section)
        # Of equally exact routes the first wins, so what is for all goes last.
        self.draft.routes.sort(key=lambda route: (route.host == "*") + (route.path == "/"))
        known = {pool.name for pool in self.draft.pools}
        for route in [route for route in self.draft.routes if route.pool not in known]:
            self.draft.notes.append(f"the backend {route.pool} is not in the file: its route was left out")
            self.draft.routes.remove(route)
        return self.draft

    def _defaults(self, section: _Section) -> None:
        for line in section.lines:
            if line.begins("mode", "tcp"):
                self.default_tcp = True
            elif not self._timeout(line) and not self._implied(line):
                self.note(line)

    def _timeout(self, line: _Line) -> bool:
        words = line.words
        if len(words) >= 3 and words[0] == "timeout" and words[1] in _TIMEOUTS and (value := seconds(words[2])):
            self.draft.worker.setdefault(_TIMEOUTS[words[1]], value)
            return True
        return False

    @staticmethod
    def _implied(line: _Line) -> bool:
        said = f"{' '.join(line.words)} "
        return said.startswith(("ssl-default", "tune.", *(f"{known} " for known in _IMPLIED)))

    # Frontends

    def _frontend(self, section: _Section) -> None:
        names: list[str] = []
        conditions: dict[str, DraftRoute] = {}
        routes: list[DraftRoute] = []
        for line in section.lines:
            words = line.words
            if words[0] == "bind" and len(words) > 1:
                names += self._bind(section, line)
            elif words[0] == "acl" and len(words) > 2:
                self._condition(line, conditions)
            elif words[0] == "use_backend" and len(words) > 1:
                routes += self._use(line, conditions)
            elif words[0] == "default_backend" and len(words) > 1:
                routes.append(DraftRoute(name_of(words[1])))
            elif section.kind == "frontend" and not self._timeout(line) and not self._implied(line):
                self.note(line)
        if section.kind == "listen":
            routes.append(DraftRoute(name_of(section.name)))
        hosts, paths = (
            any(getattr(each, key) != every for each in routes) for key, every in (("host", "*"), ("path", "/"))
        )
        if hosts and paths:
            self.draft.notes.append(
                f"{section.kind} {section.name}: rules by host and by path: there the first that holds wins, "
                "here the most exact host, then the longest path"
            )
        self.draft.routes += [attrs.evolve(route, services=list(names)) for route in routes]

    def _bind(self, section: _Section, line: _Line) -> Iterator[str]:
        places, options = line.words[1], line.words[2:]
        certificate = options[options.index("crt") + 1] if "crt" in options[:-1] else ""
        if "ssl" in options and not certificate:
            self.note(line, "names no certificate: give the service tls = { certificate = …, key = … }")
        for place in places.split(","):
            host, _, port = place.rpartition(":")
            host = host.strip("[]")
            if not port.isdecimal() or place.startswith(("unix@", "/", "abns@")):
                self.note(line, "is no address and port, left out")
                continue
            try:
                address = str(ip_address(host)) if host not in ("", "*") else "0.0.0.0"
            except ValueError:
                self.note(line, "is no IP address, left out")
                continue
            name = name_of(section.name) + (f"-{port}" if self._taken(name_of(section.name)) else "")
            self.draft.services.append(DraftService(name, address, int(port), certificate))
            yield name

    def _taken(self, name: str) -> bool:
        return any(service.name == name for service in self.draft.services)

    def _condition(self, line: _Line, conditions: dict[str, DraftRoute]) -> None:
        name, criterion, *rest = line.words[1:]
        values = [word for word in rest if word not in ("-i", "-m", "--")]
        if "-f" in rest or len(values) != 1:
            self.note(line, "compares with several values or a file: write one route for each")
        elif criterion in ("hdr(host)", "req.hdr(host)", "hdr_dom(host)"):
            conditions[name] = DraftRoute("", host=values[0].partition(":")[0].lower())
        elif criterion in ("hdr_end(host)",) and values[0].startswith("."):
            conditions[name] = DraftRoute("", host=f"*{values[0].lower()}")
        elif criterion in ("path_beg", "path_dir") or (criterion == "path" and "-m" in rest and "beg" in rest):
            path = next(value for value in values if value != "beg")
            conditions[name] = DraftRoute("", path=path if path.startswith("/") else f"/{path}")
        else:
            self.note(line)

    def _use(self, line: _Line, conditions: dict[str, DraftRoute]) -> list[DraftRoute]:
        words = line.words
        pool = name_of(words[1])
        if len(words) == 2:
            return [DraftRoute(pool)]
        tests = [word for word in words[3:] if word != "and"]
        if words[2] != "if" or not tests or any(test not in conditions and test != "or" for test in tests):
            self.note(line, "has a condition that no route can express, left out")
            return []
        routes, route = [], DraftRoute(pool)
        for test in [*tests, "or"]:
            if test == "or":
                routes.append(route)
                route = DraftRoute(pool)
            else:
                found = conditions[test]
                route = DraftRoute(
                    pool,
                    found.host if found.host != "*" else route.host,
                    found.path if found.path != "/" else route.path,
                )
        return routes

    # Backends

    def _pool(self, section: _Section) -> None:
        pool = DraftPool(name_of(section.name))
        path = ""
        for line in section.lines:
            words = line.words
            if words[0] == "balance" and len(words) > 1:
                if words[1] in _POLICIES:
                    pool.policy = _POLICIES[words[1]]
                else:
                    self.note(line, "became round-robin: see the policies in the documentation")
            elif line.begins("option", "httpchk"):
                path = next((word for word in words[2:] if word.startswith("/")), "/")
            elif line.begins("http-check", "send") and "uri" in words[:-1]:
                path = words[words.index("uri") + 1]
            elif words[0] == "cookie" and len(words) > 1:
                pool.cookie = name_of(words[1])
            elif line.begins("stick", "on") and len(words) > 2 and (stick := _stick(words[2])):
                pool.stick = pool.stick or stick  # the first one counts
            elif words[0] == "server" and len(words) > 2:
                self._server(pool, line)
            elif words[0] not in _FRONTEND and not self._timeout(line) and not self._implied(line):
                self.note(line)
        if path and pool.check is not None:
            pool.check.kind, pool.check.path = "http", path
        if pool.backends:
            self.draft.pools.append(pool)
        elif section.kind == "backend":
            self.draft.notes.append(f"backend {section.name} has no servers, left out")

    def _server(self, pool: DraftPool, line: _Line) -> None:
        name, place, options = line.words[1], line.words[2], line.words[3:]
        host, _, port = place.rpartition(":")
        if not port.isdecimal() or "/" in place:
            self.note(line, "names no port, left out")
            return

        def number(key: str) -> str:
            return options[options.index(key) + 1] if key in options[:-1] else ""

        weight = number("weight")
        if "disabled" in options or weight == "0":
            self.note(line, "is disabled, left out")
            return
        if "backup" in options:
            self.note(line, "is a backup: it became a member like the others")
        if "ssl" in options:
            pool.tls = True
            if "none" in options:
                self.note(
                    line, "does not verify the certificate: here it is verified; tls = { verify = false } ends that"
                )
        pool.backends[name_of(name)] = (f"{host}:{port}", min(int(weight), 1000) if weight.isdecimal() else 1)
        if "check" in options and pool.check is None:
            rise, fall = number("rise"), number("fall")
            pool.check = DraftCheck(
                interval=seconds(number("inter")),
                rise=int(rise) if rise.isdecimal() else None,
                fall=int(fall) if fall.isdecimal() else None,
            )


def from_haproxy(text: str) -> Draft:
    """What a ``haproxy.cfg`` says, as far as it can be said here; the rest is in the notes, line by line."""
    return _Converter().convert(text)
