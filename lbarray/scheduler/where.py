"""Where a client's packets go: the row that its address maps to, and who has the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from lbarray.scheduler.abi import NOBODY, client_mask, mapped
from lbarray.scheduler.flow import hash_client
from lbarray.scheduler.table import RowTable
from lbarray.values import Address, HashBy, PlaneService, ServiceId

__all__ = ["Place", "places"]


@attrs.frozen
class Place:
    """For one service.

    :ivar row: of the table; ``None`` when the client's port decides and was not given.
    :ivar worker: who has the row; :ivar before: who had it, the newest first, and may still hold connections in it.
    :ivar alternative: who gets a new connection in place of ``worker`` where it is less loaded.
    :ivar shares: without a row, how likely each worker is, 0.0 to 1.0.
    """

    service: ServiceId
    hash_by: HashBy
    row: int | None = None
    worker: str = ""
    alternative: str = ""
    before: tuple[str, ...] = ()
    shares: Mapping[str, float] = attrs.field(factory=dict)


def places(
    client: Address,
    port: int | None,
    *,
    services: Sequence[PlaneService],
    table: RowTable,
    names: Mapping[int, str],
    secret: bytes,
) -> list[Place]:
    """Where a client's packets go, for each service of its address family.

    :param port: the client's, needed for services that hash by connection.
    :param names: of the workers, by index; :param secret: of the flow hash.
    """
    found = []
    for service in services:
        if service.id.address.version != client.version:
            continue
        if service.hash_by is HashBy.CONNECTION and port is None:
            counted = table.shares()
            shares = {names.get(index, "nobody"): count / table.size for index, count in sorted(counted.items())}
            found.append(Place(service.id, service.hash_by, shares=shares))
            continue
        octets = (port or 0).to_bytes(2, "big")
        value = hash_client(secret, mapped(client), octets, service.hash_by, client_mask(service))
        # The upper half, scaled: as the planes do it, who have no cheap division.
        row = (value >> 32) * table.size >> 32
        now, *before = table.row(row)
        other = table.row((value & 0xFFFFFFFF) * table.size >> 32)[0] if service.least_loaded else now
        found.append(
            Place(
                service.id,
                service.hash_by,
                row,
                names.get(now, "nobody"),
                names.get(other, "") if other != now else "",
                tuple(names[index] for index in before if index != NOBODY and index in names),
            )
        )
    return found
