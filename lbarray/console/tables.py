"""Rows for people: plain text tables, as wide as their content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "array_table",
    "failover_table",
    "pools_table",
    "rewriting_table",
    "services_table",
    "status_tables",
    "table",
]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns under their heads; numbers to the right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    numeric = [
        bool(cells) and all(_is_number(row[column]) for row in cells if row[column]) for column in range(len(heads))
    ]
    widths = [max(len(head), *(len(row[column]) for row in cells), 0) for column, head in enumerate(heads)]

    def line(values: Sequence[str]) -> str:
        return "  ".join(
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ).rstrip()

    return "\n".join([line(list(heads)), line(["-" * width for width in widths]), *(line(row) for row in cells)])


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit()


def _part(status: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = status.get(key)
    return value if isinstance(value, Mapping) else {}


def _vips(member: Mapping[str, object]) -> list[str]:
    """What a member owns; an IPv6 router's link-local address is nobody's business."""
    owned = member.get("owned")
    return [vip for vip in owned if not vip.startswith("fe80:")] if isinstance(owned, list) else []


def failover_table(status: Mapping[str, object]) -> str:
    """The virtual routers as this node sees them."""
    rows = []
    routers = _part(_part(status, "failover"), "routers")
    if not routers:
        return ""
    for name, router in routers.items():
        assert isinstance(router, Mapping)
        failing = router.get("failing")
        why = "; ".join(str(each) for each in failing.values()) if isinstance(failing, Mapping) else ""
        vips = router.get("vips")
        rows.append(
            [
                name,
                " ".join(vips) if isinstance(vips, list) else "",
                *(router.get(key) for key in ("state", "owner", "priority", "transitions", "since_s", "takeover_s")),
                why,
            ]
        )
    heads = ["router", "VIPs", "here", "owner", "priority", "transitions", "since s", "last takeover s", "failing"]
    return table(heads, rows)


def array_table(status: Mapping[str, object]) -> str:
    """The nodes: who is in, who owns the VIPs, how busy each is, what each runs."""
    membership = _part(status, "membership")
    rows = []
    for name, member in _part(membership, "members").items():
        assert isinstance(member, Mapping)
        cpu = member.get("cpu")
        rows.append(
            [
                name,
                member.get("address"),
                " ".join(_vips(member)),
                "draining" if member.get("draining") else "accepts" if member.get("accepting") else "accepts nobody",
                member.get("weight"),
                member.get("share"),
                member.get("connections"),
                member.get("requests_per_s"),
                round(100 * cpu) if isinstance(cpu, int | float) else None,
                member.get("since_s"),
                member.get("configuration"),
            ]
        )
    missing = membership.get("missing")
    for name in missing if isinstance(missing, list) else []:
        rows.append([name, "", "", "missing", None, None, None, None, None, None, ""])
    heads = [
        "node",
        "address",
        "vips",
        "state",
        "weight",
        "share",
        "connections",
        "requests/s",
        "cpu %",
        "in for s",
        "configuration",
    ]
    return table(heads, rows)


def services_table(status: Mapping[str, object]) -> str:
    """What clients meet on this node."""
    rows = []
    for name, service in _part(status, "services").items():
        assert isinstance(service, Mapping)
        rows.append([name, *(service.get(key) for key in ("at", "tls", "connections", "accepted", "requests"))])
    return table(["service", "at", "tls", "connections", "accepted", "requests"], rows)


def pools_table(status: Mapping[str, object]) -> str:
    """The back ends as this node sees them."""
    seen = ("address", "state", "since_s", "check", "circuit")
    keys = (*seen, "weight", "outstanding", "limit", "requests", "failures", "idle")
    rows = []
    for pool, members in _part(status, "pools").items():
        assert isinstance(members, Mapping)
        for name, member in members.items():
            rows.append([pool, name, *(member.get(key) for key in keys)])
    return table(["pool", "back end", *(key.replace("_s", " s") for key in keys)], rows)


def rewriting_table(status: Mapping[str, object]) -> str:
    """The hosts of the CDN, and what was rewritten; nothing where nothing is."""
    rewriting = _part(status, "rewriting")
    origins = rewriting.get("cdn")
    if not isinstance(origins, list) or not origins:
        return ""
    failing, probes = rewriting.get("cdn_failing"), _part(rewriting, "probes")
    rows = []
    for origin in origins:
        probed = _part(probes, origin.partition("//")[2])
        in_use = not isinstance(failing, list) or origin not in failing
        rows.append([origin, in_use, probed.get("said", "not probed")])
    memo = _part(rewriting, "memo")
    counts = ", ".join(f"{word} {rewriting.get(word)}" for word in ("pages", "urls") if word in rewriting)
    kept = f", from the memo {memo.get('hits')}" if memo else ""
    return f"{table(['CDN', 'in use', 'last probe'], rows)}\nrewritten: {counts}{kept}"


_PARTS = {
    "membership": array_table,
    "failover": failover_table,
    "services": services_table,
    "pools": pools_table,
    "rewriting": rewriting_table,
}


def status_tables(status: Mapping[str, object]) -> str:
    """The whole status for people."""
    configuration = _part(status, "configuration")
    lines = [
        f"node {status['node']} of array {status['array']}, lbarray {status['version']}, up {status['uptime_s']} s"
    ]
    if version := configuration.get("version"):
        lines.append(f"configuration {version} of {configuration.get('file')}")
    if refused := configuration.get("refused"):
        lines.append(f"the last reload was refused: {refused}")
    versions = {
        str(member.get("configuration"))
        for member in _part(_part(status, "membership"), "members").values()
        if isinstance(member, Mapping) and member.get("configuration")
    }
    if len(versions) > 1:
        lines.append("the nodes run different configurations: lbarray push FILE gives all of them the same")
    parts = ["\n".join(lines)]
    for key, make in _PARTS.items():
        if _part(status, key) and (text := make(status)):
            parts.append(text)
    return "\n\n".join(parts) + "\n"
