"""BIRD's control socket, as far as a node asks: which BGP sessions there are, and in which state.

The daemon answers each command with lines ``NNNN-text``, ``NNNN text`` (the last one of an answer) or, more of the same
kind, `` text``; numbers of 8000 and above are errors (BIRD, "Remote control").
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

__all__ = ["BirdAnswer", "Session", "SessionsFactory", "read_sessions"]

LONGEST = 1 << 20
_LISTED = 1002
_STATES = frozenset({"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Passive", "Close"})
_ERROR = 8000


@attrs.frozen
class Session:
    """One BGP protocol of the daemon. ``state``: as RFC 4271 calls it (``Established``, ``Active``, …), or ``down``."""

    name: str
    state: str

    @property
    def established(self) -> bool:
        """Do routes go over it?"""
        return self.state == "Established"


class BirdAnswer:
    """Octets in, whole answers out: lists of (code, text)."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[tuple[int, str]] = []

    def feed(self, data: bytes) -> list[list[tuple[int, str]]]:
        """:raises ValueError: this is not BIRD, or it does not end."""
        self._rest += data
        if len(self._rest) > LONGEST or len(self._lines) > LONGEST // 10:
            raise ValueError("an answer without an end")
        answers = []
        while b"\n" in self._rest:
            line, self._rest = self._rest.split(b"\n", 1)
            text = line.decode("utf-8", "replace")
            if text.startswith(" "):
                if not self._lines:
                    raise ValueError(f"a line without a code: {text[:60]!r}")
                self._lines.append((self._lines[-1][0], text[1:]))
                continue
            code, mark = text[:4], text[4:5]
            if not code.isdigit() or mark not in (" ", "-"):
                raise ValueError(f"a line without a code: {text[:60]!r}")
            self._lines.append((int(code), text[5:]))
            if mark == " ":
                answers.append(self._lines)
                self._lines = []
        return answers


def read_sessions(answer: list[tuple[int, str]]) -> list[Session]:
    """The BGP sessions in the answer to ``show protocols``.

    :raises ValueError: the daemon answered with an error.
    """
    sessions = []
    for code, text in answer:
        if code >= _ERROR:
            raise ValueError(text)
        words = text.split()
        # Name, Proto, Table, State, Since (one or two words), and what the protocol says of itself.
        if code == _LISTED and len(words) >= 4 and words[1] == "BGP":
            known = (word for word in words[4:] if word in _STATES)
            sessions.append(Session(words[0], "down" if words[3] == "down" else next(known, words[3])))
    return sessions


class _Sessions(Protocol):
    def __init__(self, end: Callable[[list[Session], str], None]) -> None:
        self._end = end
        self._answer = BirdAnswer()
        self._greeted = False

    def dataReceived(self, data: bytes) -> None:
        try:
            for answer in self._answer.feed(data):
                if not self._greeted:
                    self._greeted = True
                    assert self.transport is not None
                    self.transport.write(b"show protocols\n")
                    continue
                self._end(read_sessions(answer), "")
        except ValueError as error:
            self._end([], f"its answer is not understood: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end([], "it closed the connection without an answer")


class SessionsFactory(ClientFactory):
    """Asks once. ``found(sessions, trouble)`` is called once; ``trouble`` is empty or says why there is no answer."""

    noisy = False

    def __init__(self, found: Callable[[list[Session], str], None]) -> None:
        self._found: Callable[[list[Session], str], None] | None = found
        self._connector: object = None

    def buildProtocol(self, addr: object) -> _Sessions:
        return _Sessions(self.end)

    def startedConnecting(self, connector: object) -> None:
        self._connector = connector

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.end([], reason.getErrorMessage())

    def end(self, sessions: list[Session], trouble: str) -> None:
        """The answer, or why there is none."""
        found, self._found = self._found, None
        if found is not None:
            found(sessions, trouble)
            disconnect = getattr(self._connector, "disconnect", None)
            if disconnect is not None:
                disconnect()
