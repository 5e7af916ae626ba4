"""``lbarray certs``: which certificates a node shows, and until when."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from lbarray.commands.registry import Commands, connect, show
from lbarray.console.tables import table

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``certs``."""
    commands.add_showing("certs", certs, instead="reload")


def certs(arguments: argparse.Namespace) -> int:
    """The certificates of each service with the days they are still good for; or read them anew."""
    client = connect(arguments)
    if arguments.what == "reload":
        return show(arguments, client.perform("reload-certificates"))
    services = client.status().get("services")
    found = {
        name: service["certificates"]
        for name, service in (services.items() if isinstance(services, Mapping) else ())
        if isinstance(service, Mapping) and "certificates" in service
    }
    return show(arguments, found, _rows)


def _rows(found: Mapping[str, object]) -> str:
    rows = []
    for service, certificates in found.items():
        for each in certificates if isinstance(certificates, list) else []:
            names = " ".join(each["names"])
            rows.append(
                [service, names, each["kind"], each["not_after"], each["days_left"], each["stapled"], each["file"]]
            )
    if not rows:
        return "no service of this node has TLS"
    return table(["service", "names", "kind", "good until", "days left", "stapled", "file"], rows)
