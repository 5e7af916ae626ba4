"""``twistd lbarray``: options, and the service they ask for (see :mod:`lbarray.node`)."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from lbarray.config.load import load_file, parse
from lbarray.config.model import Config
from lbarray.errors import ArrayError
from lbarray.values import Role

__all__ = ["Options", "makeService"]

_ROLES = {
    "node": Role.SCHEDULER | Role.WORKER,
    "scheduler": Role.SCHEDULER,
    "worker": Role.WORKER,
}


class _FromFile(usage.Options):
    optParameters = [
        ["config", "c", None, "The configuration, a TOML file (see etc/array.toml)."],
        ["node", "n", None, "Which node of the configuration this machine is."],
    ]


class NodeOptions(_FromFile):
    """All roles: what an array is made of."""

    longdesc = "Every role: may own the VIPs and schedule, and serves clients as a worker."


class SchedulerOptions(_FromFile):
    """Only failover and packets."""

    longdesc = "Owns VIPs and forwards packets to the workers of other nodes; serves no client itself."


class WorkerOptions(_FromFile):
    """Only TLS, HTTP and what follows."""

    longdesc = "Serves clients (TLS, HTTP, rewriting); never owns a VIP. Needs no array: see etc/standalone.toml."


class RewriteOptions(usage.Options):
    """A rewriting proxy in front of one site, without a configuration file."""

    longdesc = "A proxy in front of one site that sends the readers of its pages to a CDN."
    optParameters = [
        ["listen", "l", "127.0.0.1:8080", "Address and port to serve on."],
        ["site", "s", None, "host:port of the web server behind."],
        ["cdn", None, None, "Host name of the content delivery network."],
        ["scheme", None, "https", "https or http: how pages refer to the network."],
        ["status", None, "127.0.0.1:9080", "Loopback address of the JSON status."],
    ]

    def opt_path(self, path: str) -> None:
        """Prefix of the site's paths that the network serves; may be given several times."""
        self.setdefault("paths", []).append(path)

    def postOptions(self) -> None:
        """:raises usage.UsageError: an option without which there is nothing to do is missing."""
        missing = [f"--{name}" for name in ("site", "cdn") if not self[name]]
        if not self.get("paths"):
            missing.append("--path")
        if missing:
            raise usage.UsageError(
                f"rewrite needs {', '.join(missing)}; for example: --site 127.0.0.1:8001 "
                "--cdn cdn.example.net --path /static/"
            )

    def as_config(self) -> Config:
        """The configuration that these options mean.

        :raises BadConfig: a value is not acceptable; keys are named as in a file.
        """
        host, _, port = self["listen"].rpartition(":")
        quoted = ", ".join(_quote(path) for path in self["paths"])
        return parse(
            f"""
            [services.http]
            address = {_quote(host.strip("[]"))}
            port = {port if port.isdecimal() else _quote(port)}
            [pools.site.backends.site]
            address = {_quote(self["site"])}
            [cdn]
            host = {_quote(self["cdn"])}
            scheme = {_quote(self["scheme"])}
            paths = [{quoted}]
            [console]
            status = {_quote(self["status"])}
            """,
            source="options of twistd lbarray rewrite",
        )


def _quote(text: str) -> str:
    """A TOML basic string."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"' if inner.isprintable() else '""'


class Options(_FromFile):
    """Options of ``twistd lbarray``; without a sub-command it is ``node``."""

    synopsis = "[options] --config FILE [--node NAME] [node|scheduler|worker|rewrite [options]]"
    longdesc = "Runs one node of a load balancing array. Check a configuration first: lbarray check FILE"
    subCommands: list[list[Any]] = [
        ["node", None, NodeOptions, "Every role (the default)."],
        ["scheduler", None, SchedulerOptions, "Only VIPs and packets, for workers elsewhere."],
        ["worker", None, WorkerOptions, "Only TLS, HTTP and rewriting; an array is not needed."],
        ["rewrite", None, RewriteOptions, "A rewriting proxy in front of one site, without a file."],
    ]

    def postOptions(self) -> None:
        """:raises usage.UsageError: there is no configuration."""
        chosen = self.subOptions if self.subCommand else self
        if self.subCommand != "rewrite" and not (chosen["config"] or self["config"]):
            raise usage.UsageError("which configuration? --config FILE (an example: etc/standalone.toml)")


def makeService(options: Options) -> IService:
    """The service of one node; ends the process with one clear line when it cannot be."""
    from twisted.internet import reactor

    from lbarray.daemon.service import Daemon
    from lbarray.kernel.descriptors import raise_descriptor_limit
    from lbarray.node import node_name
    from lbarray.worker.loop import make_lean

    try:
        if options.subCommand == "rewrite":
            rewriting = options.subOptions
            assert isinstance(rewriting, RewriteOptions)
            config, name, roles, file = rewriting.as_config(), "rewrite", Role.WORKER, None
        else:
            sub = options.subOptions if options.subCommand else options
            # Absolute: a daemon in the background changes its folder, and reads the file again.
            path = Path(sub["config"] or options["config"]).absolute()
            file = load_file(path)
            config = file.config
            name = node_name(config, sub["node"] or options["node"], str(path))
            roles = _ROLES[options.subCommand or "node"]
        # Twisted counts its timers by the wall clock: set back by an hour, an owner would fall silent for an hour.
        # No timer runs yet, so the reactor may as well count by the clock that nobody sets.
        vars(reactor)["seconds"] = time.monotonic
        make_lean(reactor)
        raise_descriptor_limit()
        return Daemon(reactor=reactor, config=config, name=name, roles=roles, file=file, log_to=_log_to(options))
    except ArrayError as error:
        refuse(error)


def _log_to(options: Options) -> str | None:
    """Where the log goes: our own lines unless twistd was told of another logger; ``None`` for that.

    A daemon in the background has no standard output: twistd then names a file.
    """
    outer = options.parent
    if outer is None or outer.get("logger") or outer.get("syslog"):
        return None
    file = outer.get("logfile")
    return file or ("-" if outer.get("nodaemon") else "twistd.log")


def refuse(error: ArrayError) -> NoReturn:
    """Say why on standard error and end: no log is open yet when this happens."""
    sys.stderr.write(f"lbarray: {error}\n")
    raise SystemExit(1)
