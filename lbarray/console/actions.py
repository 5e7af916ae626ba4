"""What can be asked of a running node and what can be changed: one registry behind API, command line and manhole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import attrs
from twisted.logger import Logger

from lbarray.errors import ArrayError

__all__ = ["Action", "Actions", "Argument", "BadArgument", "Refused", "UnknownAction"]

_TYPES: Final = {"text": str, "integer": int, "number": float, "flag": bool}
_WORDS: Final = {"text": "text", "integer": "a whole number", "number": "a number", "flag": "true or false"}


class Refused(ArrayError):
    """A request of an operator that cannot be fulfilled as things are now.

    :ivar status: the HTTP status of the answer: 400, 404 or 409.
    """

    reason = "refused"
    status = 409


class UnknownAction(Refused):
    """There is no action of this name."""

    reason = "unknown_action"
    status = 404


class BadArgument(Refused):
    """An argument is missing, unknown or of another type."""

    reason = "bad_argument"
    status = 400


@attrs.frozen
class Argument:
    """One argument of an action.

    :ivar kind: ``text``, ``integer``, ``number`` or ``flag`` (true or false).
    :ivar help: what it means, for a person, with its unit.
    :ivar default: what it is when it is not given; ``None`` together with ``required`` means: must be given.
    """

    name: str
    help: str
    kind: str = "text"
    required: bool = True
    default: object = None

    def read(self, found: object) -> object:
        """The value of what came as JSON, or as text in a query.

        :raises BadArgument: it is something else.
        """
        wanted = _TYPES[self.kind]
        if isinstance(found, str) and wanted is not str:
            try:
                return {"true": True, "false": False}[found.lower()] if wanted is bool else wanted(found)
            except (KeyError, ValueError):
                pass
        elif isinstance(found, wanted) and (wanted is bool or not isinstance(found, bool)):
            return found
        elif wanted is float and isinstance(found, int) and not isinstance(found, bool):
            return float(found)
        raise BadArgument(f"{self.name}: found {str(found)[:80]!r}; accepted: {_WORDS[self.kind]} ({self.help})")


@attrs.frozen(kw_only=True)
class Action:
    """Something that a node does when asked.

    :ivar name: lower case words with hyphens, such as ``drain-backend``.
    :ivar summary: one sentence for a person.
    :ivar run: called with the arguments by name (hyphens become underscores). Returns a mapping for JSON, or a
        Deferred of one; its key ``said`` is a sentence for people. Raises :class:`ArrayError`.
    :ivar changes: false for a question, which whoever may read may ask.
    """

    name: str
    summary: str
    run: Callable[..., object]
    arguments: tuple[Argument, ...] = ()
    changes: bool = True


class Actions:
    """The actions of one node, by name. Each change is logged with who asked for it.

    :param absent: why a node like this one has not what others have, by the action's name.
    """

    log = Logger()

    def __init__(self, actions: Iterable[Action] = (), absent: Mapping[str, str] | None = None) -> None:
        self._actions: dict[str, Action] = {}
        self._absent = dict(absent or {})
        for action in actions:
            self.add(action)

    def add(self, action: Action) -> None:
        """:raises ValueError: the name is taken."""
        if action.name in self._actions:
            raise ValueError(f"two actions {action.name}")
        self._actions[action.name] = action

    def __iter__(self) -> Iterator[Action]:
        return iter(sorted(self._actions.values(), key=lambda action: action.name))

    def __contains__(self, name: object) -> bool:
        return name in self._actions

    def get(self, name: str) -> Action:
        """:raises UnknownAction: there is none; the message names those there are."""
        try:
            return self._actions[name]
        except KeyError:
            if name in self._absent:
                raise UnknownAction(f"{name}: {self._absent[name]}") from None
            known = ", ".join(sorted(self._actions)) or "none"
            raise UnknownAction(f"no action {name[:80]!r} on this node; there are: {known}") from None

    def perform(self, name: str, arguments: Mapping[str, object], who: str) -> object:
        """Do it. ``who`` asks, in words for the log.

        :returns: what ``run`` returns.
        :raises ArrayError: it cannot be done; nothing was changed.
        """
        action = self.get(name)
        values = _values(action, arguments)
        if action.changes:
            said = " ".join(f"{key}={value}" for key, value in values.items() if value is not None)
            self.log.info("by hand: {action} {arguments} ({who})", action=name, arguments=said[:500], who=who)
        return action.run(**values)


def _values(action: Action, arguments: Mapping[str, object]) -> dict[str, object]:
    known = {argument.name: argument for argument in action.arguments}
    for name in arguments:
        if name not in known:
            there = ", ".join(known) or "none"
            raise BadArgument(f"{action.name}: unknown argument {name[:80]!r}; there are: {there}")
    values: dict[str, object] = {}
    for name, argument in known.items():
        found = arguments.get(name)
        if found is None and argument.required:
            raise BadArgument(f"{action.name}: {name} is missing ({argument.help})")
        values[name.replace("-", "_")] = argument.default if found is None else argument.read(found)
    return values
