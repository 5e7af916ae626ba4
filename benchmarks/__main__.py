"""``python -m benchmarks [NAME ...]``: all of them, or the named ones."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

NAMES = (
    "http",
    "tls",
    "rewrite",
    "scheduler",
    "failover",
    "maglev",
    "choice",
    "packet_cost",
    "decisions",
    "routes",
    "policies",
    "persistence",
)
#: What belongs together: the packet path and the table that it follows.
WITH = {"scheduler": ("maglev", "choice", "packet_cost")}


def main() -> int:
    """Run them one after the other."""
    wanted = sys.argv[1:] or list(NAMES)
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    wanted = list(dict.fromkeys(name for first in wanted for name in (*WITH.get(first, ()), first)))
    for name in wanted:
        (Path(__file__).parent / "results" / f"{name}.json").unlink(missing_ok=True)
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
