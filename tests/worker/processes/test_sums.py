"""Reports of several processes as one."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.telemetry.counters import Counters
from lbarray.worker.processes.commands import Pieces, chunks
from lbarray.worker.processes.sums import add_counters, fold, sum_balancing, sum_pools, sum_services


class SumTests(SynchronousTestCase):
    """What adds up, and what does not."""

    def test_counters(self) -> None:
        """Only what is new since the report before; a process that begins anew begins at nothing."""
        counters = Counters()
        first = {"counters": [["answers", "404", 3], ["tunnels", "", 1]]}
        second = {"counters": [["answers", "404", 5], ["tunnels", "", 1]]}
        add_counters(counters, first, {})
        add_counters(counters, second, first)
        add_counters(counters, {"counters": [["answers", "404", 2]]}, {})
        self.assertEqual((counters.get("answers", "404"), counters.get("tunnels")), (7, 1))

    def test_services(self) -> None:
        """Numbers are added; words, flags and lists are those of the first."""
        one = {"services": {"https": {"at": "x", "tls": True, "requests": 2, "certificates": ["c"]}}}
        two = {"services": {"https": {"at": "x", "tls": True, "requests": 3, "certificates": ["c"]}}}
        self.assertEqual(
            sum_services([one, two]), {"https": {"at": "x", "tls": True, "requests": 5, "certificates": ["c"]}}
        )

    def test_pools(self) -> None:
        """By back end."""
        member = {"requests": 2, "failures": 0, "outstanding": 1, "idle": 4, "state": "up"}
        report = {"pools": {"web": {"w1": member}}}
        self.assertEqual(
            sum_pools([report, report]),
            {"web": {"w1": {"requests": 4, "failures": 0, "outstanding": 2, "idle": 8, "ejected": 0}}},
        )

    def test_balancing(self) -> None:
        """By pool: what is in hand and waiting; limits and names do not add up."""
        pool = {"outstanding": 1, "idle": 5, "queued": 2, "requests": 3, "retries": 0, "fit": 3}
        self.assertEqual(
            sum_balancing([{"balancing": {"web": pool}}] * 2),
            {"web": {"outstanding": 2, "idle": 10, "queued": 4, "requests": 6, "retries": 0}},
        )

    def test_gone(self) -> None:
        """What a process did is not forgotten with it; what it had open is."""
        report = {
            "services": {"https": {"at": "x", "connections": 4, "requests": 7, "accepted": 5, "resumed": 2}},
            "pools": {"web": {"w1": {"requests": 7, "failures": 1, "outstanding": 3, "idle": 2, "state": "up"}}},
            "balancing": {"web": {"outstanding": 3, "queued": 1, "requests": 7, "retries": 2}},
        }
        gone: dict[str, Any] = {}
        fold(gone, report)
        fold(gone, report)
        self.assertEqual(sum_services([gone]), {"https": {"requests": 14, "accepted": 10, "resumed": 4}})
        self.assertEqual(sum_pools([gone])["web"]["w1"]["requests"], 14)
        self.assertEqual(sum_pools([gone])["web"]["w1"]["outstanding"], 0)
        self.assertEqual(sum_balancing([gone])["web"]["retries"], 4)
        self.assertEqual(sum_balancing([gone])["web"]["queued"], 0)

    def test_any_size(self) -> None:
        """A value beyond what AMP takes at once goes in pieces."""
        value = {"names": [str(number * 7919) for number in range(100_000)]}
        pieces = list(chunks(value))
        self.assertGreater(len(pieces), 1)
        whole = Pieces()
        found = [whole.add(piece["piece"], piece["last"]) for piece in pieces]  # type: ignore[arg-type]
        self.assertEqual(found[:-1], [None] * (len(pieces) - 1))
        self.assertEqual(found[-1], value)
