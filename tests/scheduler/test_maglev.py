"""The Maglev table's promises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.scheduler.maglev import DEFAULT_SIZE, Weighted, build_table
from lbarray.scheduler.table import RowTable

SIZE = 1009
names = st.sets(st.text("abcdefgh123", min_size=1, max_size=5), min_size=1, max_size=8)


def shares(workers: list[Weighted], size: int = SIZE) -> dict[str, int]:
    ranked = sorted(workers, key=lambda worker: worker.name)
    table = build_table(workers, size)
    return {worker.name: table.count(place) for place, worker in enumerate(ranked)}


class MaglevTests(SynchronousTestCase):
    """Who gets which rows."""

    def test_size_is_prime(self) -> None:
        """Every skip visits every row only when the size is prime."""
        self.assertTrue(all(DEFAULT_SIZE % divisor for divisor in range(2, int(DEFAULT_SIZE**0.5) + 1)))

    @settings(deadline=None, max_examples=30)
    @given(names)
    def test_equal_shares(self, members: set[str]) -> None:
        """Equal workers differ by one row at most."""
        counts = shares([Weighted(name) for name in members]).values()
        self.assertLessEqual(max(counts) - min(counts), 1)
        self.assertEqual(sum(counts), SIZE)

    @settings(deadline=None, max_examples=20)
    @given(names, st.randoms())
    def test_order_does_not_matter(self, members: set[str], random: object) -> None:
        """Every node of an array computes the same table, however it came to know the members."""
        workers = [Weighted(name) for name in sorted(members)]
        shuffled = workers[:]
        random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
        self.assertEqual(build_table(workers, SIZE), build_table(shuffled, SIZE))

    def test_weights(self) -> None:
        """A worker of half the weight has half the rows."""
        counts = shares([Weighted("a", 100), Weighted("b", 50), Weighted("c", 100)])
        self.assertAlmostEqual(counts["b"] / counts["a"], 0.5, delta=0.02)

    def test_little_moves(self) -> None:
        """When one of five leaves, few rows of the others change hands (paper, §5.3)."""
        five = [Weighted(name) for name in "abcde"]
        before = [sorted(five, key=lambda worker: worker.name)[place].name for place in build_table(five)]
        four = five[:-1]
        after = [four[place].name for place in build_table(four)]
        stayed = [(old, new) for old, new in zip(before, after, strict=True) if old != "e"]
        moved = sum(old != new for old, new in stayed)
        self.assertLess(moved / len(stayed), 0.12)

    def test_refuses_nonsense(self) -> None:
        """Nobody, or a weight of nothing, is the caller's mistake."""
        self.assertRaises(ValueError, build_table, [])
        self.assertRaises(ValueError, build_table, [Weighted("a", 0)])


class RowTableTests(SynchronousTestCase):
    """Rows of one node, with their former owners."""

    def setUp(self) -> None:
        self.table = RowTable({"a": 0, "b": 1, "c": 2}, SIZE)

    def update(self, *members: str) -> int:
        return len(self.table.update([Weighted(name) for name in members]))

    def test_first(self) -> None:
        """At first every row changes, and its owner before is its owner now."""
        self.assertEqual(self.update("a", "b"), SIZE)
        self.assertTrue(all(self.table.row(row)[0] == self.table.row(row)[1] for row in range(SIZE)))

    def test_before(self) -> None:
        """A row that moves remembers who had it."""
        self.update("a", "b")
        old = [self.table.row(row)[0] for row in range(SIZE)]
        delta = self.table.update([Weighted("a"), Weighted("c")])
        self.assertTrue(delta)
        for change in delta:
            self.assertEqual(change.before, old[change.row])
            self.assertEqual(self.table.row(change.row), (change.now, change.before))

    def test_no_change(self) -> None:
        """The same members in another order change nothing."""
        self.update("a", "b")
        self.assertEqual(self.update("b", "a"), 0)
        self.assertEqual(self.table.generation, 1)

    def test_nobody(self) -> None:
        """With nobody who accepts, the rows stay: better a stale row than none."""
        self.update("a", "b")
        self.assertEqual(self.update(), 0)
        self.assertEqual(sum(self.table.shares().values()), SIZE)
        self.assertEqual(set(self.table.shares()), {0, 1})
