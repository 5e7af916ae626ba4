"""Twisted's own proxy as it is shipped, as a contender: ``python -m benchmarks.reverse_proxy FOLDER PLAIN TLS RSA``"""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor, ssl
from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import Site


def main(folder: str, *ports: str) -> None:
    """Serve until SIGTERM."""
    loop: object = reactor
    site = Site(ReverseProxyResource("127.0.0.1", 8001, b""))
    site.noisy = False
    plain, tls, rsa = (int(port) for port in ports)
    loop.listenTCP(plain, site, interface="127.0.0.1", backlog=1024)  # type: ignore[attr-defined]
    for port, stem in ((tls, "site"), (rsa, "rsa")):
        pem = (Path(folder) / f"{stem}.crt").read_text() + (Path(folder) / f"{stem}.key").read_text()
        certificate = ssl.PrivateCertificate.loadPEM(pem)
        options = ssl.CertificateOptions(
            privateKey=certificate.privateKey.original,
            certificate=certificate.original,
            enableSessions=True,
            enableSessionTickets=True,
        )
        loop.listenSSL(port, site, options, interface="127.0.0.1", backlog=1024)  # type: ignore[attr-defined]
    loop.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:])
