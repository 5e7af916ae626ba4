"""A relay of IMAP: TLS ends here, octets go on. A plug-in: put it into a folder twisted/plugins."""

from twisted.plugin import IPlugin
from zope.interface import implementer

from lbarray.interfaces import IServiceProtocol
from lbarray.worker.relay import RelayConnection, RelayFactory


class Imap(RelayConnection):
    method = b"IMAP"  # what rules of routes see

    def moved(self) -> None:
        super().moved()
        self.deadline = self.factory.seconds() + 1800.0  # RFC 9051 §5.4: no logout within half an hour


class ImapFactory(RelayFactory):
    protocol = Imap


@implementer(IPlugin, IServiceProtocol)
class Plugin:
    name = "relay"
    factory = ImapFactory


relay = Plugin()
