"""Clients to sockets: the program, and the kernel that runs it."""

from __future__ import annotations

import select
import socket
from collections import Counter
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.worker.listeners import listening_socket
from lbarray.worker.steering import leave_to_kernel, run_program, steer_by_chance, steer_by_client, steering_program


def header(address: str) -> bytes:
    """A network header with this source."""
    packed = ip_address(address).packed
    return bytes(12) + packed + bytes(4) if len(packed) == 4 else bytes(8) + packed + bytes(16)


class ProgramTests(SynchronousTestCase):
    """The choice."""

    def test_spread(self) -> None:
        """Neighbouring addresses are spread evenly over any number of sockets."""
        for sockets in (1, 2, 3, 7, 16):
            for version, addresses in (
                (4, [f"10.{a}.{b}.{c}" for a in range(2) for b in range(16) for c in range(1, 255)]),
                (6, [f"2001:db8:{a:x}:{b:x}::1" for a in range(64) for b in range(128)]),
            ):
                program = steering_program(sockets, version=version, prefix=32 if version == 4 else 64)
                shares = Counter(run_program(program, header(address)) for address in addresses)
                fair = len(addresses) / sockets
                self.assertEqual(set(shares), set(range(sockets)))
                self.assertLess(max(shares.values()), fair * 1.15)

    def test_prefix(self) -> None:
        """Only the prefix counts: a client that changes its lower half stays where it is."""
        program = steering_program(5, version=6, prefix=64)
        chosen = {run_program(program, header(f"2001:db8:1:2::{end:x}")) for end in range(200)}
        self.assertEqual(len(chosen), 1)
        program = steering_program(5, version=4, prefix=24)
        self.assertEqual(len({run_program(program, header(f"192.0.2.{end}")) for end in range(256)}), 1)
        self.assertEqual(run_program(steering_program(5, version=4, prefix=0), header("192.0.2.1")), 0)

    def test_impossible(self) -> None:
        """No sockets, or more bits than an address has."""
        for sockets, version, prefix in ((0, 4, 32), (2, 4, 33), (2, 6, 129)):
            with self.assertRaises(ValueError):
                steering_program(sockets, version=version, prefix=prefix)


class KernelTests(SynchronousTestCase):
    """Real sockets on the loopback interface."""

    def test_the_kernel_agrees(self) -> None:
        """Each client's connections wait at the socket that the program names, whatever their ports."""
        first = listening_socket("127.0.0.1", 0, reuse_port=True)
        port = first.getsockname()[1]
        group = [first, *(listening_socket("127.0.0.1", port, reuse_port=True) for _ in range(2))]
        clients = []
        try:
            steer_by_client(first, len(group), prefix=32)
            program = steering_program(len(group), version=4, prefix=32)
            for client in range(1, 30):
                address = f"127.0.1.{client}"
                for _ in range(2):
                    clients.append(socket.create_connection(("127.0.0.1", port), 5, source_address=(address, 0)))
                    ready, _, _ = select.select(group, [], [], 5)
                    accepted, peer = ready[0].accept()
                    accepted.close()
                    self.assertEqual(group.index(ready[0]), run_program(program, header(peer[0])))
        finally:
            for each in (*group, *clients):
                each.close()

    def test_left_to_the_kernel(self) -> None:
        """Without the program ports count again: the connections of one client wait at more than one socket."""
        first = listening_socket("127.0.0.1", 0, reuse_port=True)
        port = first.getsockname()[1]
        group = [first, listening_socket("127.0.0.1", port, reuse_port=True)]
        clients = []
        try:
            leave_to_kernel(first)  # nothing to take off is no mistake
            steer_by_client(first, len(group), prefix=32)
            leave_to_kernel(first)
            for _ in range(40):
                clients.append(socket.create_connection(("127.0.0.1", port), 5))
            ready, _, _ = select.select(group, [], [], 5)
            self.assertEqual(len(ready), 2)
        finally:
            for each in (*group, *clients):
                each.close()

    def test_the_first_ones(self) -> None:
        """By chance, but only to the first sockets of a group: those behind them get nobody."""
        first = listening_socket("127.0.0.1", 0, reuse_port=True)
        port = first.getsockname()[1]
        group = [first, *(listening_socket("127.0.0.1", port, reuse_port=True) for _ in range(3))]
        clients = []
        try:
            steer_by_chance(first, 2)
            for _ in range(60):
                clients.append(socket.create_connection(("127.0.0.1", port), 5))
            ready, _, _ = select.select(group, [], [], 5)
            self.assertEqual(ready, group[:2])
        finally:
            for each in (*group, *clients):
                each.close()
