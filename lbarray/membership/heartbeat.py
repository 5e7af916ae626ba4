"""What a node says of itself in a heartbeat: fields by number, so that versions of one array understand each other.

Each field is ``number (1) | length (1) | value``; what is longer than 255 octets is in several of one number. Whoever
does not know a number passes over it; a field that is not there has its default. Numbers are never used again for
something else.
"""

from __future__ import annotations

import enum
import struct
from ipaddress import ip_address

from lbarray.membership.datagram import BadDatagram
from lbarray.values import Address, Load, NodeReport, Role

__all__ = ["decode_report", "encode_report"]


#: Octets of names of proved workers; with more than that, a scheduler does not judge.
LONGEST_ABLE = 900
LONGEST_TROUBLE = 240


@enum.unique
class _Field(enum.IntEnum):
    ADDRESS = 1
    MAC = 2
    ROLES = 3
    FLAGS = 4
    WEIGHT = 5
    CONNECTIONS = 6
    REQUESTS_PER_S = 7
    CPU = 8
    ACCEPT_QUEUE = 9
    SHARE = 10
    ABLE = 13
    TROUBLE = 14
    OWNED_IPV4 = 32
    OWNED_IPV6 = 33
    CONFIGURATION = 11
    VERSION = 12


class _Flag(enum.IntFlag):
    ACCEPTING = 1
    DRAINING = 2


_U8 = struct.Struct("!B")
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_F32 = struct.Struct("!f")


def encode_report(report: NodeReport) -> bytes:
    """The body of a heartbeat; name and incarnation are said by the datagram itself."""
    load = report.load
    flags = (_Flag.ACCEPTING if report.accepting else 0) | (_Flag.DRAINING if report.draining else 0)
    fields = [
        (_Field.ADDRESS, report.address.packed),
        (_Field.MAC, report.mac),
        (_Field.ROLES, _U8.pack(report.roles.value)),
        (_Field.FLAGS, _U8.pack(flags)),
        (_Field.WEIGHT, _U16.pack(report.weight)),
        (_Field.CONNECTIONS, _U32.pack(min(load.connections, 0xFFFFFFFF))),
        (_Field.REQUESTS_PER_S, _F32.pack(load.requests_per_s)),
        (_Field.CPU, _F32.pack(load.cpu)),
        (_Field.ACCEPT_QUEUE, _U32.pack(min(load.accept_queue, 0xFFFFFFFF))),
        (_Field.SHARE, _U16.pack(report.share)),
        (_Field.CONFIGURATION, report.configuration.encode()[:40]),
        (_Field.VERSION, report.version.encode()[:40]),
    ]
    for field, version in ((_Field.OWNED_IPV4, 4), (_Field.OWNED_IPV6, 6)):
        # As many as a field holds: 63 and 15.
        packed = [vip.packed for vip in report.owned if vip.version == version]
        fields.append((field, b"".join(packed[: 255 // 4 if version == 4 else 255 // 16])))
    if report.able is not None:
        names = b"\0".join(name.encode() for name in sorted(report.able))
        if len(names) <= LONGEST_ABLE:
            fields.append((_Field.ABLE, names))
    if report.trouble:
        fields.append((_Field.TROUBLE, report.trouble.encode()[:LONGEST_TROUBLE]))
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: bytes) -> bytes:
    """One field, or several of the same number where the value is too long for one."""
    pieces = [value[at : at + 255] for at in range(0, len(value), 255)] or [b""]
    return b"".join(bytes((number, len(piece))) + piece for piece in pieces)


def _values(body: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(body):
        end = at + 2 + body[at + 1] if at + 2 <= len(body) else len(body) + 1
        if end > len(body):
            raise ValueError("a field that is cut off")
        found[body[at]] = found.get(body[at], b"") + body[at + 2 : end]
        at = end
    return found


def _addresses(values: dict[int, bytes], field: _Field, size: int) -> list[Address]:
    packed = values.get(field, b"")
    return [ip_address(packed[at : at + size]) for at in range(0, len(packed), size)]


def decode_report(body: bytes, *, name: str, incarnation: int) -> NodeReport:
    """:raises BadDatagram: fields that make no sense."""
    try:
        values = _values(body)

        def number(field: _Field, form: struct.Struct, default: float = 0) -> float:
            value = values.get(field)
            unpacked: float = form.unpack(value)[0] if value is not None else default
            return unpacked

        flags = int(number(_Field.FLAGS, _U8))
        names = values.get(_Field.ABLE)
        return NodeReport(
            name=name,
            address=ip_address(values.get(_Field.ADDRESS, b"")),
            mac=values.get(_Field.MAC, b""),
            # Roles that a later version has are none that this one could act on.
            roles=Role(int(number(_Field.ROLES, _U8)) & (Role.SCHEDULER | Role.WORKER).value),
            load=Load(
                connections=int(number(_Field.CONNECTIONS, _U32)),
                requests_per_s=number(_Field.REQUESTS_PER_S, _F32),
                cpu=number(_Field.CPU, _F32),
                accept_queue=int(number(_Field.ACCEPT_QUEUE, _U32)),
            ),
            accepting=bool(flags & _Flag.ACCEPTING),
            draining=bool(flags & _Flag.DRAINING),
            weight=int(number(_Field.WEIGHT, _U16, 100)),
            share=int(number(_Field.SHARE, _U16, 1000)),
            able=frozenset(names.decode().split("\0")) - {""} if names is not None else None,
            trouble=values.get(_Field.TROUBLE, b"").decode("utf-8", "replace"),
            incarnation=incarnation,
            owned=(*_addresses(values, _Field.OWNED_IPV4, 4), *_addresses(values, _Field.OWNED_IPV6, 16)),
            configuration=values.get(_Field.CONFIGURATION, b"").decode(),
            version=values.get(_Field.VERSION, b"").decode(),
        )
    except (ValueError, struct.error) as error:
        raise BadDatagram("no_heartbeat", f"a heartbeat of node {name} with {error}") from None
