"""The Maglev table's promises."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.scheduler.maglev import DEFAULT_SIZE, NOBODY, Weighted, build_table, compiled, fill, join, merge
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

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.sampled_from([101, SIZE]))
    def test_compiled_or_not(self, weights: list[int], size: int) -> None:
        """The compiled loops and those in Python give the same rows, before and after."""
        if not compiled:
            raise SkipTest("no compiler was here when lbarray was installed")
        from lbarray.scheduler import _rows

        places = range(len(weights))
        offsets = array("I", [place * 7919 % size for place in places])
        skips = array("I", [place * 104729 % (size - 1) + 1 for place in places])
        tables = [array("H", bytes(2 * size)) for _ in range(2)]
        for loop, table in zip((fill, _rows.fill), tables, strict=True):
            loop(offsets, skips, array("I", weights), table)
        self.assertEqual(tables[0], tables[1])
        indices = array("H", [place + 3 for place in places])
        others = array("H", [place + 1 for place in places])
        rows = [array("H", [NOBODY] * 4) * size for _ in range(2)]
        for each, dead in ((indices, []), (others, []), (indices, [5]), (others, [1, 4]), (others, [3])):
            gone = array("H", dead)
            self.assertEqual(merge(tables[0], each, gone, rows[0]), _rows.merge(tables[1], each, gone, rows[1]))
            self.assertEqual(rows[0], rows[1])
        theirs = array("H", [NOBODY] * 4) * size
        for dead in ([], [2, 5]):
            merge(tables[0], array("H", reversed(indices)), array("H"), theirs)
            for each_join, table in zip((join, _rows.join), rows, strict=True):
                each_join(theirs, array("H", dead), table)
            self.assertEqual(rows[0], rows[1])

    def test_compiled_refuses(self) -> None:
        """What would make the compiled loop run for ever or out of bounds is refused by it."""
        if not compiled:
            raise SkipTest("no compiler was here when lbarray was installed")
        from lbarray.scheduler import _rows

        one, rows = array("I", [1]), array("H", bytes(22))
        for bad in (
            (array("I", [11]), one, one),
            (one, array("I", [0]), one),
            (one, array("I", [11]), one),
            (one, one, array("I", [0])),
            (one, one, array("I", [1, 1])),
            (array("I"), array("I"), array("I")),
        ):
            self.assertRaises(ValueError, _rows.fill, *bad, rows)
        none = array("H")
        self.assertRaises(ValueError, _rows.merge, rows, none, none, array("H", bytes(88)))
        self.assertRaises(ValueError, _rows.merge, rows, array("H", [1]), none, rows)
        self.assertRaises(ValueError, _rows.join, rows, none, rows)
        self.assertRaises(ValueError, _rows.join, array("H", bytes(8)), none, array("H", bytes(16)))

    def test_refuses_nonsense(self) -> None:
        """Nobody, or a weight of nothing, is the caller's mistake."""
        self.assertRaises(ValueError, build_table, [])
        self.assertRaises(ValueError, build_table, [Weighted("a", 0)])


class RowTableTests(SynchronousTestCase):
    """Rows of one node, with their former owners."""

    def setUp(self) -> None:
        self.table = RowTable({"a": 0, "b": 1, "c": 2}, SIZE)

    def update(self, *members: str, dead: tuple[str, ...] = ()) -> int:
        return self.table.update([Weighted(name) for name in members], dead)

    def owners(self) -> set[tuple[int, ...]]:
        return {self.table.row(row) for row in range(SIZE)}

    def test_first(self) -> None:
        """At first every row changes, and nobody had it before."""
        self.assertEqual(self.update("a", "b"), SIZE)
        self.assertEqual({before for _, *former in self.owners() for before in former}, {NOBODY})

    def test_before(self) -> None:
        """A row that moves remembers who had it, and who had it before that."""
        self.update("a")
        self.update("b")
        self.assertEqual(self.owners(), {(1, 0, NOBODY, NOBODY)})
        self.update("c")
        self.assertEqual(self.owners(), {(2, 1, 0, NOBODY)})

    def test_back_again(self) -> None:
        """A row that returns to a former owner names it only once."""
        self.update("a")
        self.update("b")
        self.update("a")
        self.assertEqual(self.owners(), {(0, 1, NOBODY, NOBODY)})
        self.update("c")
        self.update("a")
        self.assertEqual(self.owners(), {(0, 2, 1, NOBODY)})

    def test_the_dead_are_no_second_chance(self) -> None:
        """Who has died, or has begun anew, holds no connection: the one before it may."""
        self.update("a")
        self.update("b")
        self.update("c", dead=("b",))
        self.assertEqual(self.owners(), {(2, 0, NOBODY, NOBODY)})
        self.update("c", dead=("a",))
        self.assertEqual(self.owners(), {(2, NOBODY, NOBODY, NOBODY)})

    def test_join(self) -> None:
        """Of two histories the newest owners come first, of equally old ones the lower index, and none of the dead."""
        self.update("a")
        theirs = RowTable({"a": 0, "b": 1, "c": 2}, SIZE)
        for name in "cba":
            theirs.update([Weighted(name)])
        self.assertTrue(self.table.join(theirs.rows))
        self.assertEqual(self.owners(), {(0, 1, 2, NOBODY)})
        self.assertFalse(self.table.join(theirs.rows))
        self.table.join(theirs.rows, dead=("b",))
        self.assertEqual(self.owners(), {(0, 2, NOBODY, NOBODY)})

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
