"""``lbarray`` on the command line, and ``python -m lbarray``."""

from __future__ import annotations

import sys

from lbarray.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
