"""The journal of changes outlives whoever wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.kernel.journal import Journal, Undo

FIRST, SECOND = Undo("address", ("lo", "192.0.2.100/32")), Undo("sysctl", ("net.x", "0"))


class JournalTests(SynchronousTestCase):
    """One node's file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "state" / "journal.json"
        self.undone: list[tuple[str, ...]] = []

    def journal(self) -> Journal:
        def undo(*arguments: str) -> None:
            self.undone.append(arguments)

        return Journal(self.path, {"address": undo, "sysctl": undo})

    def test_survives(self) -> None:
        """What was recorded before a SIGKILL is there at the next start."""
        self.journal().record(FIRST)
        self.assertEqual(self.journal().pending(), (FIRST,))

    def test_newest_is_undone_first(self) -> None:
        """Changes are taken back in the opposite order, and then are no longer pending."""
        journal = self.journal()
        journal.record(FIRST)
        journal.record(SECOND)
        self.assertEqual(self.journal().undo_all(), (SECOND, FIRST))
        self.assertEqual(self.undone, [SECOND.arguments, FIRST.arguments])
        self.assertEqual(self.journal().pending(), ())

    def test_recorded_once(self) -> None:
        """The same change twice is one entry."""
        journal = self.journal()
        journal.record(FIRST)
        journal.record(FIRST)
        self.assertEqual(journal.pending(), (FIRST,))

    def test_only_what_stands_is_undone(self) -> None:
        """Undoing what was never recorded does nothing."""
        self.journal().undo(FIRST)
        self.assertEqual(self.undone, [])

    def test_refusal_keeps_the_entry(self) -> None:
        """What could not be undone is tried again the next time."""

        def refuse(*arguments: str) -> None:
            raise SystemRefused("remove it", errno=1)

        self.journal().record(FIRST)
        self.assertRaises(SystemRefused, Journal(self.path, {"address": refuse}).undo_all)
        self.assertEqual(self.journal().pending(), (FIRST,))

    def test_one_process(self) -> None:
        """While one process holds it, no other undoes what that one stands on."""
        first = self.journal()
        first.lock()
        error: SystemRefused = self.assertRaises(SystemRefused, self.journal().lock)
        self.assertIn(str(os.getpid()), str(error))
        first.unlock()
        self.journal().lock()

    def test_damaged(self) -> None:
        """A damaged file is not thrown away: it may name what still stands."""
        self.path.parent.mkdir(parents=True)
        self.path.write_text("{")
        error: SystemRefused = self.assertRaises(SystemRefused, self.journal)
        self.assertIn("damaged", str(error))

    def test_readable_by_people(self) -> None:
        """It is plain JSON."""
        self.journal().record(FIRST)
        self.assertEqual(json.loads(self.path.read_text()), [["address", ["lo", "192.0.2.100/32"]]])
