"""Names to certificates."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.worker.tls.names import NameTable, covers

ENTRIES = [(["shop.example", "www.shop.example"], "shop"), (["*.shop.example"], "any"), (["*.example"], "wide")]


class NameTests(SynchronousTestCase):
    """RFC 6066 §3, RFC 9525 §6.3."""

    def table(self, strict: bool = False) -> NameTable[str]:
        return NameTable(ENTRIES, default="default", strict=strict)

    def test_exact_before_wildcard(self) -> None:
        """The exact name first, then the wildcard of its parent, then the default."""
        table = self.table()
        for name, wanted in (
            ("shop.example", "shop"),
            ("WWW.Shop.Example.", "shop"),
            ("img.shop.example", "any"),
            ("other.example", "wide"),
            ("other.test", "default"),
            (None, "default"),
            ("", "default"),
        ):
            self.assertEqual(table.find(name), wanted, name)

    def test_a_wildcard_stands_for_one_label(self) -> None:
        """``*.example`` is neither ``example`` nor ``a.b.example``."""
        table = self.table()
        self.assertEqual(table.find("example"), "default")
        self.assertEqual(table.find("a.b.example"), "default")
        self.assertEqual(table.find(".example"), "default")

    def test_strict(self) -> None:
        """Strict: who asks for nothing we have, or for nothing at all, gets nothing."""
        table = self.table(strict=True)
        self.assertEqual(table.find("img.shop.example"), "any")
        self.assertIsNone(table.find("other.test"))
        self.assertIsNone(table.find(None))

    def test_first_claim_wins(self) -> None:
        """Of two certificates for a name the first one has it."""
        table = NameTable([(["a.example"], 1), (["a.example"], 2)], default=0, strict=False)
        self.assertEqual(table.find("a.example"), 1)

    def test_covers(self) -> None:
        """A certificate's name and a host's name."""
        self.assertTrue(covers("*.example", "a.example"))
        self.assertFalse(covers("*.example", "a.b.example"))
        self.assertFalse(covers("*.example", ".example"))
        self.assertTrue(covers("A.example", "a.example."))
