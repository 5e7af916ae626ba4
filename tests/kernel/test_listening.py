"""What waits for somebody to accept it."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.listening import accept_queue, held_connections


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

    def test_held(self) -> None:
        """Connections of a port are listed with both ends and their state, at most as many as were asked for."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            clients = [socket.create_connection(address) for _ in range(3)]
            found = held_connections({address[1]}, 10)
            self.assertEqual({each.port for each in found}, {client.getsockname()[1] for client in clients})
            self.assertEqual({(str(each.to), each.to_port, each.state) for each in found}, {(*address, "established")})
            self.assertEqual(len(held_connections({address[1]}, 2)), 2)
            for client in clients:
                client.close()
