"""Frozen values that cross from one room to another, and nothing else."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address

import attrs

__all__ = [
    "Address",
    "BackendAddress",
    "BackendState",
    "ClientAddress",
    "Handling",
    "HashBy",
    "Load",
    "NodeReport",
    "Outcome",
    "PlaneCounters",
    "PlaneFlow",
    "PlaneService",
    "Role",
    "ServiceId",
    "Share",
    "WorkerCost",
    "WorkerTarget",
]

Address = IPv4Address | IPv6Address


class Role(enum.Flag):
    """What a node does for the array at this moment."""

    NONE = 0
    SCHEDULER = enum.auto()
    WORKER = enum.auto()


class HashBy(enum.IntEnum):
    """What of a packet chooses its row: the values are those of ``bpf/abi.h``."""

    CONNECTION = 0
    CLIENT = 1


@attrs.frozen(order=True, cache_hash=True)  # looked up for every request
class ServiceId:
    """A VIP, port and transport protocol that the array offers."""

    address: Address
    port: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}/{self.protocol}"


@attrs.frozen
class PlaneService:
    """A service as a forwarding plane needs to know it.

    :ivar prefix4: when hashing by client, how many bits of an IPv4 address make one client; :ivar prefix6: of IPv6.
    :ivar least_loaded: a new connection may go to the worker of a second row that is less loaded; of TCP, hashed by
        connection.
    """

    id: ServiceId
    hash_by: HashBy = HashBy.CONNECTION
    prefix4: int = 32
    prefix6: int = 128
    least_loaded: bool = False


@attrs.frozen
class WorkerTarget:
    """Where the scheduler sends the packets of one worker.

    :ivar index: small number that table rows name it by; stable while the node is a member.
    :ivar mac: six octets of its interface in the array's segment; ``b""`` while unknown.
    :ivar local: it is this very node: its packets are passed up, not sent out.
    :ivar tunnel: how packets are put into others on the way, for workers beyond a router: ``gue``, ``ipip``, or not at
        all. ``mac`` is then the router's.
    :ivar lost: nothing is heard of it any more, so nothing is sent to it; what it still passes on is taken.
    """

    index: int
    name: str
    address: Address
    mac: bytes = b""
    local: bool = False
    tunnel: str = ""
    lost: bool = False


@attrs.frozen
class WorkerCost:
    """What a worker bears, and what one more connection would add: 1,024 is one of a worker of the mean weight."""

    open: int
    each: int


@attrs.frozen
class Share:
    """What one worker was given of one service.

    :ivar connections: SYNs; :ivar cached: packets whose worker was remembered.
    :ivar passed_on: packets that another worker did not know and that went to this one (second chance).
    :ivar chosen: SYNs that came here because the worker of their row was more loaded.
    """

    packets: int = 0
    octets: int = 0
    connections: int = 0
    cached: int = 0
    passed_on: int = 0
    chosen: int = 0

    def plus(self, other: Share) -> Share:
        """The sum of both."""
        return Share(*(mine + theirs for mine, theirs in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


@attrs.frozen
class PlaneCounters:
    """What a forwarding plane has done since it was attached.

    :ivar packets: packets by verdict: ``forwarded``, ``passed_local``, ``dropped_<reason>``, …
    :ivar shares: what workers, by index, were given of each service; those that were given nothing are missing.
    """

    packets: dict[str, int] = attrs.field(factory=dict)
    octets: dict[str, int] = attrs.field(factory=dict)
    shares: dict[ServiceId, dict[int, Share]] = attrs.field(factory=dict)

    @property
    def per_worker(self) -> dict[int, tuple[int, int]]:
        """(packets, octets) by worker index."""
        sums: dict[int, Share] = {}
        for workers in self.shares.values():
            for index, share in workers.items():
                sums[index] = sums.get(index, Share()).plus(share)
        return {index: (share.packets, share.octets) for index, share in sums.items()}


@attrs.frozen
class PlaneFlow:
    """A connection that a forwarding plane remembers.

    :ivar worker: index of the worker that its first packet went to.
    """

    service: ServiceId
    client: Address
    port: int
    worker: int


@attrs.frozen
class Load:
    """How busy a node's workers are.

    :ivar connections: client connections open now.
    :ivar requests_per_s: over the last heartbeat interval.
    :ivar cpu: share of the node's processors in use, 0.0 to 1.0.
    :ivar accept_queue: clients whose connection the kernel holds and no worker has taken yet.
    """

    connections: int = 0
    requests_per_s: float = 0.0
    cpu: float = 0.0
    accept_queue: int = 0


@attrs.frozen
class NodeReport:
    """What one node says of itself in a heartbeat, and everybody believes once authenticated.

    :ivar incarnation: start of the daemon, nanoseconds since the epoch; a restart is a larger one.
    :ivar accepting: its listeners really accepted a connection when last tried.
    :ivar draining: it wants no new connections.
    :ivar weight: what the configuration gives it, against the others'.
    :ivar able: the workers that this scheduler's probes have proved; ``None``: it does not probe.
    :ivar trouble: what is wrong with its machine, one line for operators, or nothing.
    :ivar share: how much of that it takes now, in thousandths: less while it starts or is busier than the others.
    :ivar owned: the VIPs that it owns.
    :ivar configuration: version of the configuration that it runs; :ivar version: that of the program.
    """

    name: str
    address: Address
    mac: bytes = b""
    roles: Role = Role.NONE
    load: Load = attrs.field(factory=Load)
    accepting: bool = False
    draining: bool = False
    weight: int = 100
    share: int = 1000
    able: frozenset[str] | None = None
    trouble: str = ""
    incarnation: int = 0
    owned: tuple[Address, ...] = ()
    configuration: str = ""
    version: str = ""


#: Octets of the hash that stands for a TLS session.
TLS_SESSION_OCTETS = 12


@attrs.frozen
class TlsSession:
    """The TLS session of a connection, by hashes of tickets and ids.

    :ivar presented: those that the client came with, whether we could take them up or not.
    :ivar issued: those that it may come with next time.
    """

    presented: tuple[bytes, ...] = ()
    issued: tuple[bytes, ...] = ()


@attrs.frozen
class ClientAddress:
    """The client's end of a connection, and how it came to us.

    :ivar session: its TLS session, where a pool goes by these; it does not make two addresses different.
    """

    host: str
    port: int
    tls: bool = False
    session: TlsSession | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class Handling:
    """How the requests of one route are handled; ``None`` leaves it to ``[worker]``.

    :ivar route: its name, in metrics, logs and traces.
    :ivar max_body: octets of content before the request is refused with 413.
    :ivar response_timeout_s: a back end's silence before 504.
    :ivar retry_statuses: final statuses of a back end upon which a request that may be repeated (idempotent,
        no content) goes to :meth:`lbarray.interfaces.IAssignment.another`, as long as nothing has been answered.
    :ivar retry_broken: the same when its connection breaks before anything of a response has come.
    """

    max_body: int | None = None
    response_timeout_s: float | None = None
    route: str = ""
    retry_statuses: frozenset[int] = frozenset()
    retry_broken: bool = False


@attrs.frozen
class BackendAddress:
    """A back end by name and place. ``pool`` and ``name`` are the configuration's keys."""

    pool: str
    name: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.pool}/{self.name} ({self.host}:{self.port})"


class BackendState(enum.Enum):
    """May a back end have new requests?"""

    UP = "up"
    DOWN = "down"
    DRAINING = "draining"
    EJECTED = "ejected"
    UNCHECKED = "unchecked"


class Outcome(enum.Enum):
    """How a request that was assigned to a back end ended; what passive health counts."""

    ANSWERED = "answered"
    SERVER_ERROR = "server_error"
    CONNECT_FAILED = "connect_failed"
    BROKEN = "broken"
    TIMED_OUT = "timed_out"
    CLIENT_GONE = "client_gone"

    # By identity: Enum's own is a call of Python for each request.
    __hash__ = object.__hash__
