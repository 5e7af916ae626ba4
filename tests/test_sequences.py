"""Sequence numbers that are good once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.sequences import SequenceWindow

SIZE = 8


class SequenceWindowTests(SynchronousTestCase):
    """Against a memory of everything."""

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(-2, 40)))
    def test_once(self, numbers: list[int]) -> None:
        """A number passes if it is positive, was not there, and is less than the window behind the highest."""
        window, passed, highest = SequenceWindow(SIZE), set[int](), 0
        for number in numbers:
            good = number >= 1 and number not in passed and highest - number < SIZE
            self.assertEqual(window.admit(number), good, numbers)
            if good:
                passed.add(number)
                highest = max(highest, number)
            self.assertEqual(window.highest, highest)
