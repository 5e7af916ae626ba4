"""Why a message is refused."""

from __future__ import annotations

from typing import ClassVar

from lbarray.errors import Unreadable

__all__ = ["BadMessage"]


class BadMessage(Unreadable):
    """A message that cannot be understood in exactly one way.

    :ivar answer: the status its sender gets, if it is a client.
    """

    reason = "http_message"
    status: ClassVar[int | None] = 400

    def __init__(self, why: str, detail: str, answer: int = 400) -> None:
        super().__init__(why, detail)
        self.answer = answer
