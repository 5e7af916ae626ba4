"""The three families of errors, sorted by who must act: the peer, the operator, or this machine.

Leaves live beside the code that raises them and carry fields, not only text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import ClassVar

import attrs

__all__ = ["ArrayError", "BadConfig", "BadInput", "Problem", "SystemRefused", "Unreadable"]


class ArrayError(Exception):
    """Every error lbarray raises on purpose."""


class BadInput(ArrayError):
    """What a peer sent is wrong: answer it, count it by ``reason``, go on.

    :cvar reason: the counter's label, snake_case, stable between releases.
    :cvar status: the HTTP status its sender gets, or ``None`` where there is none to give.
    :ivar answer_fields: (name, value) to add to that answer, such as Retry-After.
    :ivar route: the name of the route that the request had come to; empty for none.
    """

    reason: ClassVar[str] = "bad_input"
    status: ClassVar[int | None] = None
    answer_fields: tuple[tuple[bytes, bytes], ...] = ()
    route: str = ""


@attrs.frozen
class Problem:
    """One mistake in a configuration.

    :ivar key: full path of the key, such as ``pools.web.backends.w1.weight``.
    :ivar found: what stands there, as the operator wrote it.
    :ivar accepted: what would be accepted instead, in words.
    """

    key: str
    found: str
    accepted: str

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; accepted: {self.accepted}"


class Unreadable(BadInput):
    """Input of one kind that can be wrong in several ways.

    :ivar why: which of them, the counter's label.
    :ivar detail: for the operator.
    """

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(why, detail)
        self.why = why
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class BadConfig(ArrayError):
    """The configuration cannot be used; nothing of it has been.

    :ivar problems: every mistake, in the order of the file's sections.
    :ivar source: the file's name, or what else it came from.
    """

    def __init__(self, problems: Iterable[Problem], source: str = "configuration") -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        super().__init__(self.source, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{self.source}: {count} error{'s' if count != 1 else ''}"
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])


class SystemRefused(ArrayError):
    """This machine would not do what we asked of it.

    :ivar tried: what was attempted, on which object: ``bind UDP 10.0.0.1:4780``.
    :ivar errno: the kernel's error number, or 0 where there was none.
    :ivar advice: what the operator can do, with the command where there is one.
    """

    def __init__(self, tried: str, *, errno: int = 0, detail: str = "", advice: str = "") -> None:
        self.tried = tried
        self.errno = errno
        self.detail = detail or (os.strerror(errno) if errno else "")
        self.advice = advice
        super().__init__(tried, errno, self.detail, advice)

    def __str__(self) -> str:
        said = f"cannot {self.tried}"
        if self.detail:
            said += f": {self.detail}"
        if self.advice:
            said += f"; {self.advice}"
        return said
