"""Knocks at a TCP port again and again: ``python -m lbarray.testbed.knocking HOST PORT PAUSE_S SECONDS``.

Each knock is a new connection that is closed once it is answered. One JSON line for each: when it began, when it was
answered (``null`` for never), in seconds of the machine's monotonic clock.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Iterator

import attrs

__all__ = ["Knock", "read_knocks"]

#: How long an answer is waited for. TCP sends its first segment again after one second: that is the next knock's work.
PATIENCE_S = 0.9


@attrs.frozen
class Knock:
    """One attempt to connect. ``answered`` is ``None`` when nobody did, and when it was refused."""

    began: float
    answered: float | None


def read_knocks(text: str) -> list[Knock]:
    """The knocks that a process printed, by when they began."""
    knocks = [Knock(**json.loads(line)) for line in text.splitlines() if line.startswith("{")]
    return sorted(knocks, key=lambda knock: knock.began)


def _began(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    attempt = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # It leaves with a reset: thousands of these would fill the client's ports with TIME_WAIT.
    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    attempt.connect_ex((host, port))
    return attempt


def knocks(host: str, port: int, pause_s: float, seconds: float) -> Iterator[Knock]:
    """Knock every ``pause_s`` for so many seconds; each knock once it is answered or hopeless."""
    poll = select.epoll()
    waiting: dict[int, tuple[socket.socket, float]] = {}
    began = time.monotonic()
    due = began
    while time.monotonic() < began + seconds or waiting:
        now = time.monotonic()
        if now >= due and now < began + seconds:
            attempt = _began(host, port)
            waiting[attempt.fileno()] = (attempt, now)
            poll.register(attempt, select.EPOLLOUT)
            due += pause_s
        for number, _ in poll.poll(max(0.0, min(due - time.monotonic(), 0.05)) if now < began + seconds else 0.05):
            attempt, since = waiting.pop(number)
            poll.unregister(number)
            refused = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            attempt.close()
            yield Knock(since, None if refused else time.monotonic())
        for number, (attempt, since) in list(waiting.items()):
            if time.monotonic() - since < PATIENCE_S:
                break  # they are in the order of their beginning
            del waiting[number]
            poll.unregister(number)
            attempt.close()
            yield Knock(since, None)


def main(host: str, port: str, pause_s: str, seconds: str) -> None:
    """Print every knock."""
    for knock in knocks(host, int(port), float(pause_s), float(seconds)):
        sys.stdout.write(json.dumps(attrs.asdict(knock)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
