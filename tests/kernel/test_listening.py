"""What waits for somebody to accept it."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.listening import accept_queue


class AcceptQueueTests(SynchronousTestCase):
    """Asked of the real kernel, on loopback."""

    def test_waiting(self) -> None:
        """Connections that nobody has accepted are counted, for the ports asked about."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            self.assertEqual(accept_queue({address[1]}), 0)
            clients = [socket.create_connection(address) for _ in range(3)]
            self.assertEqual(accept_queue({address[1]}), 3)
            server.accept()[0].close()
            self.assertEqual(accept_queue({address[1]}), 2)
            self.assertEqual(accept_queue(()), 0)
            for client in clients:
                client.close()
