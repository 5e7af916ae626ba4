"""Heads that came whole and are as plain as nearly all are, read in C in one look (``_heads.c``).

What it does not read, and everything where no compiler was, goes to llhttp by way of its callbacks, at three times the
cost. Both give the same: the tests let them read the same messages, bent at random.
"""

from __future__ import annotations

from lbarray.http.fields import kinds

try:
    from lbarray.http import _heads

    scanner: _heads.Scanner | None = _heads.Scanner(kinds)
except ImportError:
    scanner = None

__all__ = ["scanner"]
