"""How packets find their workers: ``[scheduler]``."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import Flag, SecondsOrZero, between, one_of, prime

__all__ = ["Scheduler"]


@attrs.frozen
class Scheduler:
    """``[scheduler]``: the same on every node, or they would not agree on who gets which connection.

    :ivar plane: what moves the packets. ``xdp``: an eBPF program in the interface's driver, ``tc``: the same program
        behind it, ``xdp-generic``: for kernels without tc classifiers, ``packet``: Python, for kernels that allow us no
        eBPF; ``auto``: the first of them that works here, named in the log with the reason.
    :ivar table_size: rows of the Maglev table, a prime number; over 100 times the number of nodes keeps their shares
        within 1 %. 65537 suits up to some hundred nodes, 655373 moves still fewer rows at the cost of memory.
    :ivar feedback: a node's share of new connections follows its load: processors, open connections, accept queue.
    :ivar slow_start: for how long a node that joins others grows from a tenth of its share to all of it; 0: at once.
    :ivar probe_interval: how often the scheduler tries each worker on the way of its clients' packets; 0: never.
    :ivar probe_fall: so many lost in a row, and a worker gets no new connections.
    :ivar probe_rise: so many answered in a row, and it gets them again.
    """

    plane: Annotated[str, one_of("auto", "xdp", "tc", "xdp-generic", "packet")] = "auto"
    table_size: Annotated[int, prime(251, 655373)] = 65537
    feedback: Flag = True
    slow_start: SecondsOrZero = 10.0
    probe_interval: SecondsOrZero = 1.0
    probe_fall: Annotated[int, between(1, 100)] = 3
    probe_rise: Annotated[int, between(1, 100)] = 2
