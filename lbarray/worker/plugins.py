"""What services speak: HTTP, or the protocol of a plug-in."""

from __future__ import annotations

from typing import Any

from twisted.plugin import IPlugin, getPlugins
from zope.interface import implementer

from lbarray.errors import BadConfig, Problem
from lbarray.interfaces import IServiceProtocol
from lbarray.worker.factory import ClientFactory

__all__ = ["Http", "service_protocol"]


@implementer(IPlugin, IServiceProtocol)
class Http:
    """HTTP/1.1 and HTTP/2."""

    name = "http"

    def factory(self, **settings: Any) -> ClientFactory:
        return ClientFactory(**settings)


def service_protocol(name: str, key: str = "protocol") -> Any:
    """The :class:`lbarray.interfaces.IServiceProtocol` of this name.

    :param key: where the configuration asks for it.
    :raises BadConfig: no plug-in of this name is installed.
    """
    if name == Http.name:
        return Http()
    known = {protocol.name: protocol for protocol in getPlugins(IServiceProtocol)}
    if name not in known:
        names = ", ".join(f'"{each}"' for each in sorted([Http.name, *known]))
        raise BadConfig([Problem(key, f'"{name}"', f"the name of an installed protocol: {names}")])
    return known[name]
