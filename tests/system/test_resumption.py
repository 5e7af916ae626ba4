"""TLS sessions that find their node, and the process that holds them, again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import NODES, SITE, VIP, Array
from lbarray.testbed.resumption import Resumption
from tests.system.test_array import need_namespaces


class ResumptionTests(SynchronousTestCase):
    """Three nodes of two processes each."""

    def test_returning_clients(self) -> None:
        """Of 1,000 returning TLS 1.2 and 1.3 sessions at least 95 % are taken up again."""
        need_namespaces()

        def edit(text: str) -> str:
            # Rows that still grow would move clients away from their sessions.
            return text.replace("[worker]", "[scheduler]\nslow_start = 0\n\n[worker]\nprocesses = 2")

        with Array(edit=edit) as array:
            array.wait_ready()
            found = Resumption(
                host=VIP, port=443, name=SITE, authority=str(array.folder / "site.crt"), sessions=1000
            ).run_in(array.client)
            self.assertEqual(found.failed, 0, found.said)
            self.assertGreaterEqual(found.resumed, 950)
            self.assertEqual(found.by_version.keys(), {"TLSv1.2", "TLSv1.3"})
            # All nodes and processes had a share of it.
            for name in NODES:
                status = array.status(name)
                assert status is not None
                shares = [each["accepted"] for each in status["workers"]["processes"]]
                self.assertEqual(len(shares), 2)
                self.assertTrue(all(shares), shares)
                self.assertGreater(status["services"]["https"]["accepted"], 0)
