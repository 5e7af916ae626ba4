"""Builds the services of one node from a configuration. The only room that knows every part."""

from lbarray.node.identity import journal_of, node_name
from lbarray.node.service import NodeService

__all__ = ["NodeService", "journal_of", "node_name"]
