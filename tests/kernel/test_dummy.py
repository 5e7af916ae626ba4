"""Interfaces that lead nowhere."""

from __future__ import annotations

import os
from ipaddress import ip_interface

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.kernel.addresses import add_address, addresses_of
from lbarray.kernel.dummy import add_dummy
from lbarray.kernel.links import remove_interface

NAME = f"lbt{os.getpid()}"


class DummyTests(SynchronousTestCase):
    """Made and removed, for real."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("not root")
        self.addCleanup(remove_interface, NAME)

    def test_life(self) -> None:
        """It holds addresses while it is there; removing it twice is removing it once."""
        add_dummy(NAME)
        add_address(NAME, ip_interface("192.0.2.77/32"), lifetime_s=3)
        self.assertIn(ip_interface("192.0.2.77/32").ip, addresses_of(NAME))
        remove_interface(NAME)
        remove_interface(NAME)
        self.assertRaises(SystemRefused, addresses_of, NAME)

    def test_somebody_elses(self) -> None:
        """An interface that is there already is not taken: it would be removed in the end."""
        add_dummy(NAME)
        error: SystemRefused = self.assertRaises(SystemRefused, add_dummy, NAME)
        self.assertIn("bgp.interface", str(error))
