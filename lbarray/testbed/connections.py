"""Many connections that are held open, run as a process of its own: ``python -m lbarray.testbed.connections '{...}'``.

For each line on standard input every connection that is still open asks once more; one JSON line answers: which node
answered each connection first, and which connections have failed since, with the reason.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time
from typing import Any

import attrs

__all__ = ["Held", "Holding", "main"]

NODE_FIELD = b"x-lbarray-node:"


@attrs.frozen(kw_only=True)
class Holding:
    """What to hold. ``sources``: local addresses, used in turn; ``per_round``: how many ask at once."""

    host: str
    port: int
    count: int
    path: str = "/small"
    sources: tuple[str, ...] = ()
    per_round: int = 200
    timeout_s: float = 8.0

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(attrs.asdict(self))


@attrs.frozen
class Held:
    """What has become of them.

    :ivar nodes: for each connection the node that answered it first; empty where none did.
    :ivar broken: what ended each connection that is not open any more, by its number.
    """

    nodes: tuple[str, ...]
    broken: dict[int, str]

    @classmethod
    def from_json(cls, line: str) -> Held:
        """As the process printed it."""
        found = json.loads(line)
        return cls(tuple(found["nodes"]), {int(number): why for number, why in found["broken"].items()})

    def broken_of(self, nodes: set[str]) -> dict[int, str]:
        """Those that broke although their node is among ``nodes``."""
        return {
            number: f"{self.nodes[number]}: {why}" for number, why in self.broken.items() if self.nodes[number] in nodes
        }


class _Connection:
    def __init__(self, holding: Holding, number: int) -> None:
        self.node = ""
        self.broken = ""
        self.received = b""
        self._ask = f"GET {holding.path} HTTP/1.1\r\nHost: shop.example.com\r\n\r\n".encode()
        source = (holding.sources[number % len(holding.sources)], 0) if holding.sources else None
        try:
            self.socket = socket.create_connection((holding.host, holding.port), holding.timeout_s, source)
        except OSError as error:
            self.broken = f"connect: {error}"

    def ask(self) -> None:
        self.received = b""
        try:
            self.socket.sendall(self._ask)
        except OSError as error:
            self.fail(str(error))

    def readable(self) -> bool:
        """Read; is the answer whole, or the connection broken?"""
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            self.fail(str(error))
            return True
        if not data:
            self.fail("closed")
            return True
        self.received += data
        head, found, content = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        fields = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in fields if line.startswith(b"content-length:")), 0)
        if len(content) < length:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            self.fail(head.split(b"\r\n")[0].decode(errors="replace"))
            return True
        node = next((line.split(b":")[1].strip().decode() for line in fields if line.startswith(NODE_FIELD)), "")
        if self.node and node != self.node:
            self.fail(f"answered by {node}")
        self.node = self.node or node
        return True

    def fail(self, why: str) -> None:
        self.broken = why
        self.socket.close()


def _ask_all(connections: list[_Connection], holding: Holding) -> None:
    alive = [each for each in connections if not each.broken]
    for start in range(0, len(alive), holding.per_round):
        waiting = set(alive[start : start + holding.per_round])
        with selectors.DefaultSelector() as selector:
            for each in list(waiting):
                each.ask()
                if each.broken:
                    waiting.discard(each)
                else:
                    selector.register(each.socket, selectors.EVENT_READ, each)
            until = time.monotonic() + holding.timeout_s
            while waiting and time.monotonic() < until:
                for key, _ in selector.select(0.2):
                    if key.data.readable():
                        waiting.discard(key.data)
                        selector.unregister(key.fileobj)
        for each in waiting:
            each.fail("no answer")


def main(argument: str) -> None:
    """Open as ``argument``, a JSON object of :class:`Holding`'s fields, says, and ask for each line."""
    values: dict[str, Any] = json.loads(argument)
    holding = Holding(**{**values, "sources": tuple(values.get("sources", ()))})
    resource.setrlimit(resource.RLIMIT_NOFILE, (holding.count + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    connections = [_Connection(holding, number) for number in range(holding.count)]
    for _ in sys.stdin:
        _ask_all(connections, holding)
        broken = {number: each.broken for number, each in enumerate(connections) if each.broken}
        print(json.dumps({"nodes": [each.node for each in connections], "broken": broken}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
