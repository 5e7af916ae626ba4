"""Limits of this process."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.descriptors import raise_descriptor_limit


class DescriptorTests(SynchronousTestCase):
    """Files and sockets."""

    def test_raised(self) -> None:
        """What may be used is used, as far as the system lets us."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        self.assertEqual(raise_descriptor_limit(), hard)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
