"""A whole node inside another Twisted application: twistd -ny docs/examples/embedded_node.py

The application has a page of its own, and the node in front of it: TLS, cookies, rewriting and health checks in one
process. The node's console is the application's, too: it asks the node what it sees.
"""

import json

from twisted.application import internet, service
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from lbarray.config.load import parse
from lbarray.node import NodeService
from lbarray.values import Role

CONFIGURATION = """
[array]
name = "embedded"
state_dir = "/tmp/lbarray-embedded"

[worker]
processes = 0    # serve here, not by processes of the node's own

[services.http]
address = "127.0.0.1"
port = 8080

[pools.own.backends]
page = { address = "127.0.0.1:8081" }

[cdn]
host = "cdn.example.net"
paths = ["/static/"]

[console]
status = "127.0.0.1:9081"
"""


class Page(Resource):
    """What the application itself serves."""

    isLeaf = True

    def __init__(self, node):
        super().__init__()
        self.node = node

    def render_GET(self, request):
        if request.path == b"/health":
            # The node is an object like any other: its view has the status, and the actions.
            return json.dumps(self.node.view.status()["pools"]).encode()
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return b"<!DOCTYPE html><title>Embedded</title><img src='/static/spade.png'>"


def make(configuration=CONFIGURATION, page_port=8081):
    """Both services, to be given to an application or started by hand."""
    config = parse(configuration)
    node = NodeService(reactor=reactor, config=config, name=config.array.name, roles=Role.WORKER)
    both = service.MultiService()
    internet.TCPServer(page_port, Site(Page(node)), interface="127.0.0.1").setServiceParent(both)
    node.setServiceParent(both)
    return both


application = service.Application("embedded")
make().setServiceParent(application)
