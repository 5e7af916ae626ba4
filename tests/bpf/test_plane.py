"""The eBPF plane keeps the contract of planes, in each way to attach it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.kernel.attachments import Classifier, Xdp, xdp_on
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import link
from lbarray.scheduler.auto_plane import AutoPlane, Candidate
from lbarray.scheduler.bpf_plane import BpfPlane, undoers
from lbarray.testing import PlaneSuite
from tests.bpf.bench import TABLE_SIZE, make_plane, own_network


class TcPlaneTests(PlaneSuite, SynchronousTestCase):
    """As a tc classifier."""

    mode = "tc"
    ROWS = TABLE_SIZE

    def setUp(self) -> None:
        own_network(self)

    def make_plane(self) -> BpfPlane:
        return make_plane(self, self.mode)

    def test_missing_interface(self) -> None:
        """It is named, with those that there are, and nothing is left behind."""
        plane = make_plane(self, self.mode, "nosuch0")
        error: SystemRefused = self.assertRaises(SystemRefused, plane.attach)
        self.assertIn("nosuch0", str(error))
        self.assertIn("lo", error.advice)

    def test_wrong_table(self) -> None:
        """A table of another size is refused before anything changes."""
        plane = self.attached()
        self.assertRaises(ValueError, plane.apply, bytes(8))

    def test_journal(self) -> None:
        """An attached program is in the journal until it is detached."""
        journal = Journal(Path(self.mktemp()), undoers())
        plane = make_plane(self, self.mode, journal=journal)
        plane.attach()
        self.assertEqual(len(journal.pending()), 1)
        plane.detach()
        self.assertEqual(journal.pending(), ())

    def test_taken_away(self) -> None:
        """A program that somebody took away is put back."""
        plane = self.attached()
        attachment = self.attachment()
        self.assertEqual((plane.check(), attachment.found()), ("", plane.program.number))
        attachment.detach()
        self.assertEqual(attachment.found(), 0)
        self.assertEqual((plane.check(), attachment.found()), ("", plane.program.number))

    def test_replaced(self) -> None:
        """Another program in our place is noticed, and replaced in turn."""
        plane, other = self.attached(), self.attached()
        self.assertEqual(self.attachment().found(), other.program.number)
        self.assertEqual((plane.check(), self.attachment().found()), ("", plane.program.number))

    def test_another_one_stays(self) -> None:
        """What somebody attached in our place is not taken away when we end, and nothing is left to undo."""
        journal = Journal(Path(self.mktemp()), undoers())
        plane = make_plane(self, self.mode, journal=journal)
        plane.attach()
        self.attachment().detach()
        other = self.attached()
        plane.detach()
        self.assertEqual((self.attachment().found(), journal.pending()), (other.program.number, ()))

    def attachment(self) -> Classifier | Xdp:
        """Where the planes' programs are attached, as somebody else sees it."""
        return Classifier(link("lo").index, "lo")

    def test_undone_after_a_kill(self) -> None:
        """What a killed node left attached is taken away by its journal, and a new one attaches."""
        path = Path(self.mktemp())
        left = make_plane(self, self.mode, journal=Journal(path, undoers()))
        left.attach()
        self.assertEqual(len(Journal(path, undoers()).undo_all()), 1)
        self.attached()


class GenericXdpPlaneTests(TcPlaneTests):
    """As generic XDP."""

    mode = "xdp-generic"

    def attachment(self) -> Xdp:
        return Xdp(link("lo").index, "lo", generic=True)

    def test_replaced(self) -> None:
        """Another program in our place is noticed and left alone; ours is back once that is gone."""
        plane = self.attached()
        self.attachment().detach()
        other = self.attached()
        self.assertIn("another program is in place of the packet program on lo", plane.check())
        self.assertEqual(self.attachment().found(), other.program.number)
        other.detach()
        self.assertEqual((plane.check(), self.attachment().found()), ("", plane.program.number))

    def test_seen(self) -> None:
        """Others can see that there is an XDP program, and when it is gone."""
        plane = make_plane(self, self.mode)
        self.assertFalse(xdp_on("lo"))
        plane.attach()
        self.assertTrue(xdp_on("lo"))
        plane.detach()
        self.assertFalse(xdp_on("lo"))

    def test_taken(self) -> None:
        """Another XDP program is left alone, and named as the reason."""
        self.attached()
        second = self.make_plane()
        error: SystemRefused = self.assertRaises(SystemRefused, second.attach)
        self.assertIn("busy", str(error).lower())
        second.detach()
        self.assertRaises(SystemRefused, self.make_plane().attach)


class AutoPlaneTests(PlaneSuite, SynchronousTestCase):
    """The first that works."""

    ROWS = TABLE_SIZE

    def setUp(self) -> None:
        own_network(self)

    def candidates(self) -> list[Candidate]:
        return [
            Candidate("xdp", lambda: make_plane(self, "xdp"), unfit="the driver loses frames"),
            Candidate("xdp", lambda: make_plane(self, "xdp")),
            Candidate("tc", lambda: make_plane(self, "tc")),
        ]

    def make_plane(self) -> AutoPlane:
        return AutoPlane(self.candidates())

    def test_chosen(self) -> None:
        """Loopback has no XDP of its own: tc is next."""
        self.assertEqual(self.attached().name, "tc")

    def test_none(self) -> None:
        """Where nothing works, each says why."""
        plane = AutoPlane([*self.candidates()[:2], Candidate("tc", lambda: make_plane(self, "tc", "nosuch0"))])
        error: SystemRefused = self.assertRaises(SystemRefused, plane.attach)
        for part in ("the driver loses frames", "not xdp", "not tc"):
            self.assertIn(part, str(error))
