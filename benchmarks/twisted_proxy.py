"""twisted.web's ReverseProxyResource as it is shipped: ``python twisted_proxy.py PLAIN TLS BACKEND CERTIFICATE KEY``"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet import ssl
from twisted.web.proxy import ProxyClientFactory, ReverseProxyResource
from twisted.web.server import Site

reactor: Any = global_reactor


def main(plain: str, tls: str, behind: str, certificate: str, key: str) -> None:
    """Serve until the end."""
    site = Site(ReverseProxyResource("127.0.0.1", int(behind), b""))
    site.noisy = ProxyClientFactory.noisy = False
    contexts = ssl.DefaultOpenSSLContextFactory(key, certificate)
    reactor.listenTCP(int(plain), site, interface="127.0.0.1", backlog=1024)
    reactor.listenSSL(int(tls), site, contexts, interface="127.0.0.1", backlog=1024)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
