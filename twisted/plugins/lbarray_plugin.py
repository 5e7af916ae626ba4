"""What ``twistd --help`` lists. The daemon's code is named as text: looking for plug-ins imports none of it."""

from twisted.application.service import ServiceMaker

lbarray = ServiceMaker(
    "lbarray",
    "lbarray.tap",
    "A node of a decrypting load balancing array: VIP failover, packet scheduler, TLS and HTTP worker, CDN rewriting",
    "lbarray",
)
