"""Heads that came whole and are as plain as nearly all are, read in C in one look (``_heads.c``).

What it does not read, and everything where no compiler was, goes to llhttp by way of its callbacks, at three times the
cost. Both give the same: the tests let them read the same messages, bent at random.

The fields that are passed on stay together as they are sent until somebody looks at them (:mod:`lbarray.http.lines`).
"""

from __future__ import annotations

from lbarray.extensions import not_used
from lbarray.http.fields import METHODS, known_names

__all__ = ["scanner"]

try:
    from lbarray.http import _heads

    scanner: _heads.Scanner | None = _heads.Scanner(
        tuple(sorted(known_names.items(), key=lambda pair: len(pair[0]))), tuple(sorted(METHODS, key=len))
    )
except (ImportError, AttributeError, TypeError) as error:
    not_used("lbarray.http._heads", error)
    scanner = None
