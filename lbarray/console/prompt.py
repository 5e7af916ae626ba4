"""What an operator finds at the prompt: things that print themselves, what can be done with them, and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from lbarray.console.actions import Action
from lbarray.console.tables import array_table, pools_table, rewriting_table, services_table, table
from lbarray.console.view import NodeView
from lbarray.errors import ArrayError

__all__ = ["Doing", "Help", "Said", "Thing", "namespace", "welcome"]


class Said:
    """What came of an action; prints its sentence. ``.result`` is all of it."""

    def __init__(self, text: str, result: object = None) -> None:
        self._text = text
        self.result = result

    def __repr__(self) -> str:
        return self._text


def _say(result: object) -> Said:
    if isinstance(result, Mapping) and "said" in result:
        return Said(str(result["said"]), result)
    if isinstance(result, Mapping):
        return Said(_flat(result), result)
    return Said(repr(result), result)


class Doing:
    """One action, to be called: positional arguments in the action's order, or by name."""

    def __init__(self, view: NodeView, action: Action, who: Callable[[], str]) -> None:
        self._view = view
        self._action = action
        self._who = who
        self.__doc__ = action.summary
        self.__name__ = action.name.replace("-", "_")
        # For completion and for Python's own introspection.
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter(
                    argument.name.replace("-", "_"),
                    inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=inspect.Parameter.empty if argument.required else argument.default,
                )
                for argument in sorted(action.arguments, key=lambda argument: not argument.required)
            ]
        )

    def __repr__(self) -> str:
        lines = [f"{self.__name__}{self.__signature__}", f"    {self._action.summary}"]
        lines += [f"    {argument.name.replace('-', '_')}: {argument.help}" for argument in self._action.arguments]
        return "\n".join(lines)

    def __call__(self, *values: object, **named: object) -> object:
        try:
            bound = self.__signature__.bind_partial(*values, **named).arguments
        except TypeError as error:
            return Said(f"{error}; it is called as {self.__name__}{self.__signature__}")
        arguments = {name.replace("_", "-"): value for name, value in bound.items()}
        known = {argument.name for argument in self._action.arguments}
        given = {name if name in known else name.replace("-", "_"): value for name, value in arguments.items()}
        try:
            result = self._view.actions.perform(self._action.name, given, self._who())
        except ArrayError as error:
            return Said(str(error))
        if isinstance(result, Deferred):
            return result.addCallbacks(_say, lambda failure: Said(failure.getErrorMessage()))
        return _say(result)


class Thing:
    """Something of the node that prints itself, with what can be done with it as attributes."""

    def __init__(self, name: str, about: str, show: Callable[[], str], does: Mapping[str, Doing]) -> None:
        self._name = name
        self._show = show
        self._does = dict(does)
        self.__doc__ = about

    def __repr__(self) -> str:
        return self._show()

    def __dir__(self) -> Iterable[str]:
        return list(self._does)

    def __getattr__(self, name: str) -> Doing:
        try:
            return self.__dict__["_does"][name]  # type: ignore[no-any-return]
        except KeyError:
            there = ", ".join(self.__dict__["_does"]) or "nothing"
            raise AttributeError(f"{self.__dict__['_name']} can do: {there}") from None


class Help:
    """``help`` alone says what there is; ``help(thing)`` what it shows and what can be done with it."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names

    def __repr__(self) -> str:
        rows = [[name, str(thing.__doc__ or "").partition("\n")[0]] for name, thing in self._names.items()]
        return table(["type", "to see"], rows) + "\n\nhelp(pools) says what can be done with pools; TAB completes."

    def __call__(self, thing: object = None) -> Said:
        if thing is None:
            return Said(repr(self))
        if isinstance(thing, str) and thing in self._names:
            thing = self._names[thing]
        if isinstance(thing, Thing):
            name = vars(thing)["_name"]
            does = [f"{name}.{doing!r}" for doing in vars(thing)["_does"].values()]
            nothing = "Nothing can be done with it."
            return Said("\n".join([f"{name}: {thing.__doc__}", *(does or [nothing])]))
        if isinstance(thing, Doing):
            return Said(repr(thing))
        return Said(inspect.getdoc(thing) or f"{type(thing).__name__}: Python's own; see its documentation")


def _part(value: object, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _flat(value: Mapping[str, Any], before: str = "") -> str:
    """Any mapping as two columns, deeper keys joined by dots."""
    rows: list[list[object]] = []

    def walk(part: Mapping[str, Any], path: str) -> None:
        for key, each in part.items():
            if isinstance(each, Mapping):
                walk(each, f"{path}{key}.")
            else:
                rows.append([f"{path}{key}", ", ".join(map(str, each)) if isinstance(each, list | tuple) else each])

    walk(value, before)
    return table(["what", "value"], rows)


def _node_table(view: NodeView) -> str:
    status = view.status()
    rows: list[list[object]] = [
        ["node", view.node],
        ["array", view.array],
        ["version", view.version],
        ["up for s", status["uptime_s"]],
        ["configuration", _part(status, "configuration").get("version")],
    ]
    own = _part(status, "membership", "members", view.node)
    if own:
        rows.append(["owns", ", ".join(own.get("owned") or ()) or "no VIP"])
    states = {name: router.get("state") for name, router in _part(status, "failover", "routers").items()}
    rows += [[f"failover {name}", state] for name, state in states.items()] or [["failover", "standalone"]]
    rows += [[f"{name} {label}".strip(), value] for name, label, value in view.counters]
    return table(["what", "value"], rows)


def _vip_table(view: NodeView) -> str:
    status = view.status()
    rows = []
    for name, router in _part(status, "failover", "routers").items():
        vips = router.get("vips") or []
        rows += [[vip, name, router.get("owner"), router.get("state"), router.get("since_s")] for vip in vips]
    return table(["VIP", "router", "owner", "here", "since s"], rows)


def _workers_table(view: NodeView) -> str:
    status = view.status()
    scheduled = _part(status, "scheduler", "workers")
    members = _part(status, "membership", "members")
    rows = []
    for name in dict.fromkeys([*members, *scheduled]):
        member, here = _part(members, name), _part(scheduled, name)
        rows.append(
            [
                name,
                member.get("accepting"),
                member.get("connections"),
                member.get("requests_per_s"),
                here.get("rows"),
                here.get("packets"),
                here.get("octets"),
            ]
        )
    heads = ["worker", "accepts", "connections", "requests/s", "rows", "packets from here", "octets from here"]
    return table(heads, rows)


def _certificates(view: NodeView) -> str:
    rows = []
    for name, service in _part(view.status(), "services").items():
        for each in service.get("certificates") or ():
            rows.append([name, each.get("file"), ", ".join(each.get("names") or ()), each.get("days_left")])
    return table(["service", "file", "names", "days left"], rows)


#: name, what it is, which part of the status it shows, and what can be done: method, action.
_THINGS: tuple[tuple[str, str, Callable[[NodeView], str], dict[str, tuple[str, ...]]], ...] = (
    ("array", "The nodes: who is in, who owns the VIPs, how busy each is.",
     lambda view: array_table(view.status()), {"push": ("push",), "roll_back": ("roll-back",)}),
    ("node", "This node: version, uptime, failover, and everything that it counts.",
     _node_table,
     {"drain": ("drain",), "weigh": ("weigh",), "handover": ("handover", "step-down"), "reload": ("reload",),
      "step_down": ("step-down",)}),
    ("vip", "The virtual addresses, their routers, and who owns them.",
     _vip_table, {"handover": ("handover", "step-down")}),
    ("scheduler", "Where this node sends packets, when it owns VIPs: plane, rows, verdicts.",
     lambda view: _flat(_part(view.status(), "scheduler")), {}),
    ("workers", "The nodes that serve clients, their load, and what this node has sent them.", _workers_table,
     {"drain": ("drain",), "weigh": ("weigh",)}),
    ("services", "What clients meet on this node.", lambda view: services_table(view.status()), {}),
    ("pools", "The back ends as this node sees them.", lambda view: pools_table(view.status()),
     {"drain": ("drain-backend",), "weight": ("weigh-backend", "backend-weight", "set-weight"),
      "add": ("backend-add", "add-backend"), "remove": ("backend-remove", "remove-backend")}),
    ("flows", "Where packets of clients go.", lambda view: _flat(_part(view.status(), "scheduler", "verdicts")),
     {"where": ("where",), "list": ("flows",)}),
    ("certs", "The certificates and how long they are good.",
     _certificates, {"reload": ("reload-certificates", "certs-reload")}),
    ("rules", "What rewriting does to pages, and how often.",
     lambda view: rewriting_table(view.status()) or "this node rewrites nothing", {}),
)  # fmt: skip


def namespace(view: NodeView, who: Callable[[], str] = lambda: "the manhole") -> dict[str, Any]:
    """The names at the prompt."""
    doings = {action.name: Doing(view, action, who) for action in view.actions}
    names: dict[str, Any] = {}
    for name, about, show, wanted in _THINGS:
        does = {}
        for method, candidates in wanted.items():
            found = next((doings[each] for each in candidates if each in doings), None)
            if found is not None:
                does[method] = found
        names[name] = Thing(name, about, lambda show=show: show(view), does)  # type: ignore[misc]
    names["do"] = Thing(
        "do",
        "Everything that can be asked of this node or changed in it.",
        lambda: "\n".join(repr(doing) for doing in doings.values()),
        {doing.__name__: doing for doing in doings.values()},
    )
    names["help"] = Help(dict(names))
    names["view"] = view
    return names


def welcome(view: NodeView) -> str:
    """What one reads on entering."""
    status = view.status()
    owner = ", ".join(
        name
        for name, member in _part(status, "membership", "members").items()
        if "SCHEDULER" in member.get("roles", ())
    )
    lines = [
        f"Node {view.node} of array {view.array}, lbarray {view.version}, up {status['uptime_s']} s.",
        f"The VIPs are with node {owner}." if owner else "",
        "Type array, node, vip, scheduler, workers, services, pools, flows, certs or rules to look;",
        "help for what each is, help(pools) for what can be done with it. TAB completes, the arrows bring lines back.",
        "This is Python inside the daemon: what you type is logged. Ctrl-D leaves.",
    ]
    return "\n".join(line for line in lines if line)
