"""From a flow to its row, and to what is remembered of it, as ``bpf/flow.h`` and ``bpf/memory.h`` do it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import attrs

from lbarray.scheduler.abi import FLOW_BITS
from lbarray.scheduler.siphash import siphash13
from lbarray.values import HashBy, PlaneService, ServiceId

__all__ = ["Memory", "hash_client", "numbered", "place_of"]


def hash_client(secret: bytes, source: bytes, source_port: bytes, hash_by: HashBy, mask: bytes) -> int:
    """The hash of a flow, 64 bits.

    :param source: the client's address, sixteen octets, :func:`lbarray.scheduler.abi.mapped`.
    :param source_port: two octets in network order; :param secret: sixteen octets that the array shares.
    """
    if hash_by is HashBy.CLIENT:
        source, source_port = bytes(octet & bits for octet, bits in zip(source, mask, strict=True)), b""
    short = source[:12] == b"\0" * 10 + b"\xff\xff"
    return siphash13(secret, (source[12:] if short else source) + source_port)


def place_of(hashed: int, source: bytes, source_port: bytes, number: int) -> int:
    """Where in the memory a connection is, as ``bpf/memory.h`` computes it.

    :param hashed: the lower half of its hash; :param source: the client's address, sixteen octets.
    :param number: of its service.
    """
    last, port = int.from_bytes(source[12:], sys.byteorder), int.from_bytes(source_port, sys.byteorder)
    mixed = hashed + last * 0x9E3779B1 + port * 0x85EBCA6B + number * 0xC2B2AE35
    return (mixed & 0xFFFFFFFF) >> (32 - FLOW_BITS)


def numbered(services: Sequence[PlaneService], before: Mapping[ServiceId, int], last: int) -> dict[ServiceId, int]:
    """A number for each service: what is remembered of one is not taken for another's that has its place.

    :param before: the numbers of those until now; :param last: the one given last.
    """
    numbers = {each.id: before[each.id] for each in services if each.id in before}
    for each in services:
        while each.id not in numbers:
            last = last % 0xFFFF + 1
            if last not in numbers.values():
                numbers[each.id] = last
    return numbers


@attrs.frozen
class Memory:
    """What is known of a connection: ``worker`` has it, learned when the rows were those of ``epoch``.

    :ivar sequence: number of the segment that it was learned from.
    """

    source: bytes
    source_port: bytes
    number: int
    worker: int
    epoch: int
    sequence: bytes = b""
