"""Who had a row before: learnt by nodes that join, and good enough to find every connection."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from itertools import permutations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.membership.requests import ArrayRequests
from lbarray.scheduler.abi import PASSES, PASSES_OF_TWO_ROWS
from lbarray.scheduler.history import PIECE, HistoryService
from lbarray.scheduler.maglev import NOBODY, Weighted
from lbarray.scheduler.owners import list_owners, next_owner
from lbarray.scheduler.table import RowTable
from lbarray.telemetry.counters import Counters
from lbarray.testing import MemoryChannel, MemoryMembers
from lbarray.values import NodeReport, WorkerTarget

INDEX = {name: place for place, name in enumerate("abcd")}
NAMES = {place: name for name, place in INDEX.items()}
ADDRESS = IPv4Address("192.0.2.1")
SIZE = 10007


class World:
    """Three nodes, a fourth that joins, each with its own table; and whoever may hold connections in each row.

    :param two_rows: a connection has a second row, and may be with the worker of that.
    """

    def __init__(self, chance: random.Random, two_rows: bool = False) -> None:
        self.chance = chance
        self.two_rows = two_rows
        self.size = 2503 if two_rows else SIZE
        self.weights = dict.fromkeys("abc", 100)
        self.drained: set[str] = set()
        self.tables = {name: RowTable(INDEX, self.size) for name in "abc"}
        self.settle()
        self.holders: list[set[int]] = [set() for _ in range(self.size)]

    def settle(self, *changes: tuple[str, int]) -> None:
        """Everybody hears of changes of weights: some of one after the other, in this order or that, some of several
        at a time."""
        for table in self.tables.values():
            weights = dict(self.weights)
            for place, (name, weight) in enumerate(self.chance.sample(changes, len(changes))):
                weights[name] = weight
                if place == len(changes) - 1 or self.chance.random() < 0.5:
                    table.update(self.wanted(weights))
        self.weights |= dict(changes)
        for table in self.tables.values():
            table.update(self.wanted(self.weights))

    def wanted(self, weights: dict[str, int]) -> list[Weighted]:
        return [Weighted(name, weight) for name, weight in weights.items() if name not in self.drained]

    def clients_come(self) -> None:
        """New connections in every row."""
        table = self.tables["b"]
        for row, holders in enumerate(self.holders):
            holders.add(table.row(row)[0])
            if self.two_rows:
                holders.add(table.row(self.second(row))[0])

    def second(self, row: int) -> int:
        return (row * 7919 + 13) % self.size

    def add(self) -> None:
        """As a service does it: a guess, then what another node tells, then rows in steps."""
        table = self.tables["d"] = RowTable(INDEX, self.size)
        table.update([Weighted(name, weight) for name, weight in self.weights.items()])
        self.settle()
        table.learn(self.tables["b"].rows)
        for weight in (10, 40, 70, 100):
            self.settle(("d", weight))

    def drain(self) -> None:
        self.drained = {"c"}
        self.settle()

    def weigh(self) -> None:
        self.settle(("b", 250), ("c", 60))

    def kill(self) -> None:
        del self.tables["a"], self.weights["a"]
        self.settle()

    def way(self, row: int, holder: int, scheduler: str = "b") -> Iterator[int]:
        """The workers that a packet of a connection of ``holder`` meets, from a scheduler that remembers nothing."""
        sender, at = None, self.tables[scheduler].row(row)[0]
        yield at
        for passes in range(PASSES_OF_TWO_ROWS if self.two_rows else PASSES):
            if at == holder:
                return
            workers = {
                INDEX[name]: WorkerTarget(INDEX[name], name, ADDRESS, local=INDEX[name] == at) for name in self.tables
            }
            table = self.tables[NAMES[at]]
            owners = list_owners(table.row(row), table.row(self.second(row)) if self.two_rows else None)
            found = next_owner(owners, at, sender, workers, hop=1 + passes)
            if found is None:
                return
            sender, at = at, found.index
            yield at

    def spread(self, change: Callable[[], None]) -> list[tuple[int, str]]:
        """What is lost while a change is known to one node, to two, to three, whoever of them schedules."""
        old = {name: table.rows for name, table in self.tables.items()}
        change()
        new = {name: table.rows for name, table in self.tables.items()}
        lost = []
        for count in range(1, len(new)):
            told = self.chance.sample(sorted(new), count)
            for name, table in self.tables.items():
                table._rows = array("H", new[name] if name in told else old[name])
            lost += [each for scheduler in new for each in self.lost(scheduler)]
        for name, table in self.tables.items():
            table._rows = array("H", new[name])
        return lost

    def lost(self, scheduler: str = "b") -> list[tuple[int, str]]:
        """(row, worker that lives) of every connection that is not found."""
        return [
            (row, NAMES[holder])
            for row, holders in enumerate(self.holders)
            for holder in holders
            if NAMES[holder] in self.tables and list(self.way(row, holder, scheduler))[-1] != holder
        ]


class OrderTests(SynchronousTestCase):
    """The tables alone, of every node."""

    def test_every_order(self) -> None:
        """In whatever order a node is added, one drained, weights changed and the scheduler killed: every connection of
        a node that lives is found, by a scheduler without a memory."""
        chance = random.Random(20261125)
        for order in permutations(("add", "drain", "weigh", "kill")):
            world = World(chance)
            for event in order:
                world.clients_come()
                getattr(world, event)()
                self.assertEqual(world.lost(), [], f"{event} of {order}")

    def test_every_order_of_two_rows(self) -> None:
        """The same where each connection may be with the worker of its second row."""
        chance = random.Random(20261125)
        for order in permutations(("add", "drain", "weigh", "kill")):
            world = World(chance, two_rows=True)
            for event in order:
                world.clients_come()
                getattr(world, event)()
                self.assertEqual(world.lost(), [], f"{event} of {order}")

    def test_many_changes_of_two_rows(self) -> None:
        """In a larger array, whoever had one of the two rows within three changes of it is found."""
        chance = random.Random(20261125)
        index = {f"n{place}": place for place in range(12)}
        workers = {place: WorkerTarget(place, name, ADDRESS) for name, place in index.items()}
        table = RowTable(index, 1009)
        names = sorted(index)
        for left_out in range(0, 12, 3):
            table.update([Weighted(name) for name in names if name not in names[left_out : left_out + 3]])
        for number in range(1009):
            rows = table.row(number), table.row(chance.randrange(1009))
            owners = list_owners(*rows)
            holder = chance.choice([each for row in rows for each in row if each != NOBODY])
            at, sender = rows[0][0], None
            for passes in range(PASSES_OF_TWO_ROWS):
                if at == holder:
                    break
                known = {**workers, at: WorkerTarget(at, "", ADDRESS, local=True)}
                found = next_owner(owners, at, sender, known, hop=1 + passes)
                assert found is not None
                sender, at = at, found.index
            self.assertEqual(at, holder, rows)

    def test_while_a_change_spreads(self) -> None:
        """A node that has not heard of a change yet passes on what it is sent by one that has, and the other way."""
        chance = random.Random(20261125)
        for order in permutations(("drain", "weigh")):
            world = World(chance)
            for event in order:
                world.clients_come()
                self.assertEqual(world.spread(getattr(world, event)), [], f"{event} of {order}")

    def test_while_a_change_of_two_rows_spreads(self) -> None:
        """The same where each connection may be with the worker of its second row."""
        chance = random.Random(20261125)
        for order in permutations(("drain", "weigh")):
            world = World(chance, two_rows=True)
            for event in order:
                world.clients_come()
                self.assertEqual(world.spread(getattr(world, event)), [], f"{event} of {order}")


def report(name: str, accepting: bool = True) -> NodeReport:
    return NodeReport(name=name, address=IPv4Address("192.0.2.1"), accepting=accepting)


class Node:
    """A table with a history, and what tells and learns it."""

    def __init__(self, channel: MemoryChannel, clock: Clock, members: MemoryMembers, table: RowTable) -> None:
        self.requests = ArrayRequests(clock=clock, channel=channel)
        self.table = table
        self.counters = Counters()
        self.told: list[bool] = []
        self.met: list[list[str]] = []
        self.answered: list[str] = []
        self.service = HistoryService(
            node_name=channel.name,
            members=members,
            requests=self.requests,
            rows=lambda: self.table.rows,
            learn=self.table.learn,
            meet=lambda came: self.met.append([each.name for each in came]),
            join=self.table.join,
            met=self.answered.append,
            changed=lambda: self.told.append(self.service.pending),
            counters=self.counters,
        )
        self.service.startService()


class HistoryTests(SynchronousTestCase):
    """Node d joins a and b, who have seen much."""

    def setUp(self) -> None:
        self.clock = Clock()
        channels = dict(zip("abd", MemoryChannel.array("a", "b", "d"), strict=True))
        seen = RowTable(INDEX, SIZE)
        for names in ("abc", "ab", "abc", "ac", "ab"):
            seen.update([Weighted(name, 100) for name in names])
        quiet = MemoryMembers()
        self.a, self.b = (Node(channels[name], self.clock, quiet, seen) for name in "ab")
        self.members = MemoryMembers(report("d", False), report("a", False))
        self.d = Node(channels["d"], self.clock, self.members, RowTable(INDEX, SIZE))
        self.addCleanup(self.d.service.stopService)

    def meet(self, *names: str) -> None:
        self.members.become(report("d", False), *(report(name) for name in names))

    def test_learns(self) -> None:
        """Everything that the other knows, in pieces that fit into datagrams, before it takes clients."""
        self.meet("a")
        self.assertEqual(self.d.table.rows, self.a.table.rows)
        self.assertEqual(self.d.told, [False])
        self.assertFalse(self.d.service.pending)

    def test_only_from_who_takes_clients(self) -> None:
        """Nodes that start together have nothing to tell each other."""
        self.members.become(report("d", False), report("a", False))
        self.assertEqual(self.d.told, [])
        self.assertFalse(self.d.service.pending)

    def test_once(self) -> None:
        """Who has learnt asks nobody any more."""
        self.meet("a")
        self.meet("a", "b")
        self.assertEqual(self.d.told, [False])

    def test_takes_no_clients_meanwhile(self) -> None:
        """As long as the answer is not there, it is pending; when none comes, another node is asked."""
        self.a.requests.serve("rows", lambda sender, payload: b"")  # a node that answers with nothing
        self.meet("a", "b")
        self.assertEqual(self.d.table.rows, self.b.table.rows)
        waiting: Deferred[bytes] = Deferred()
        self.d.requests.ask = lambda *_: waiting  # type: ignore[method-assign]
        late = HistoryService(
            node_name="d",
            members=self.members,
            requests=self.d.requests,
            rows=bytes,
            learn=len,
            meet=len,
            join=len,
            met=len,
            changed=lambda: None,
            counters=Counters(),
        )
        late.startService()
        self.meet("a")
        self.assertTrue(late.pending)

    def test_not_ours(self) -> None:
        """Rows of another size of table, and nonsense, change nothing; after three nodes it goes on without."""
        other = RowTable(INDEX, 101)
        other.update([Weighted("a", 100)])
        self.a.table = other
        self.b.requests.serve("rows", lambda sender, payload: struct.pack("!II", 1, 5) + b"hello")
        before = self.d.table.rows
        self.meet("a", "b")
        self.assertEqual(self.d.table.rows, before)
        self.assertEqual(self.d.counters.total("history_unknown"), 2)
        self.assertFalse(self.d.service.pending)

    def test_unknown_workers(self) -> None:
        """Rows that name workers whom the configuration does not have are refused."""
        self.assertRaises(ValueError, self.d.table.learn, struct.pack("=HHHH", 9, NOBODY, NOBODY, NOBODY) * SIZE)
        self.assertRaises(ValueError, self.d.table.learn, struct.pack("=HHHH", *[NOBODY] * 4) * SIZE)

    def test_changes_in_the_middle(self) -> None:
        """Who has begun to ask gets the rest of what it began with, though the rows have changed since."""
        first = self.successResultOf(self.d.requests.ask("a", "rows", struct.pack("!II", 0, 0)))
        number, length = struct.unpack_from("!II", first)
        self.assertGreater(length, 2 * PIECE)
        self.a.table.update([Weighted("a", 7)])
        later = self.successResultOf(self.d.requests.ask("a", "rows", struct.pack("!II", number, 1)))
        self.assertEqual(struct.unpack_from("!II", later), (number, length))
        newest = self.successResultOf(self.d.requests.ask("a", "rows", struct.pack("!II", 0, 0)))
        self.assertNotEqual(struct.unpack_from("!II", newest)[0], number)

    def test_what_it_has_now_stays(self) -> None:
        """A node that has a table already keeps its present owners, and learns who came before them."""
        self.d.table.update([Weighted("a", 100), Weighted("d", 100)])
        now = [self.d.table.row(row)[0] for row in range(SIZE)]
        self.meet("a")
        self.assertEqual([self.d.table.row(row)[0] for row in range(SIZE)], now)
        for row in range(0, SIZE, 97):
            own, theirs = self.d.table.row(row), self.a.table.row(row)
            self.assertEqual(own, (own[0], *[owner for owner in theirs if owner != own[0]], NOBODY)[:4])


class ApartTests(SynchronousTestCase):
    """Nodes a and b serve, and c and d do; neither hears the others for a while."""

    def setUp(self) -> None:
        self.clock = Clock()
        channels = MemoryChannel.array(*"abcd")
        self.members = {name: MemoryMembers() for name in "abcd"}
        self.nodes = {
            channel.name: Node(channel, self.clock, self.members[channel.name], RowTable(INDEX, SIZE))
            for channel in channels
        }
        for node in self.nodes.values():
            self.addCleanup(node.service.stopService)
        self.hear("abcd", "abcd")
        self.hear("ab", "ab")
        self.hear("cd", "cd")

    def hear(self, who: str, names: str, *, accepting: str = "abcd") -> None:
        """These nodes hear those, and give the rows to them."""
        for name in who:
            self.members[name].become(*(report(each, each in accepting) for each in names))
            self.nodes[name].table.update([Weighted(each) for each in names])

    def row(self, name: str, number: int) -> tuple[int, ...]:
        return self.nodes[name].table.row(number)

    def test_joined(self) -> None:
        """When they meet again each knows who had a row in either part."""
        apart = [(self.row("a", number), self.row("c", number)) for number in range(SIZE)]
        self.hear("abcd", "abcd")
        for number in range(0, SIZE, 7):
            for name in "abcd":
                row = self.row(name, number)
                self.assertTrue({own[0] for own in apart[number]} <= {*row}, row)
        self.assertEqual([node.met for node in self.nodes.values()], [[["c", "d"]]] * 2 + [[["a", "b"]]] * 2)

    def test_serves_on(self) -> None:
        """Nobody stops taking clients for it."""
        told = [len(node.told) for node in self.nodes.values()]
        self.hear("abcd", "abcd")
        self.assertEqual([len(node.told) for node in self.nodes.values()], told)
        self.assertEqual({node.service.pending for node in self.nodes.values()}, {False})

    def test_told_once(self) -> None:
        """Those who were together tell the same, which is fetched once."""
        before = self.nodes["a"].counters.total("history_learnt")
        self.hear("a", "abcd")
        self.assertEqual(self.nodes["a"].counters.total("history_learnt"), before + 1)
        # That the other one has heard us, too, is known by its answer.
        self.assertEqual(self.nodes["a"].answered, ["c", "d"])

    def test_one_by_one(self) -> None:
        """They are heard one after the other."""
        self.hear("a", "abd")
        self.hear("a", "abcd")
        self.assertEqual(self.nodes["a"].met, [["d"], ["c"]])

    def test_newcomer_was_not_apart(self) -> None:
        """A node that starts has taken no clients before it is heard, and has nothing to tell."""
        self.hear("ab", "abc", accepting="ab")
        self.hear("ab", "abc")
        self.assertEqual(self.nodes["a"].met, [])

    def test_does_not_tell(self) -> None:
        """Whoever does not tell, or nonsense, keeps nobody from asking the next one."""
        self.nodes["c"].requests.serve("rows", lambda sender, payload: struct.pack("!II", 1, 5) + b"hello")
        unknown = self.nodes["a"].counters.total("history_unknown")
        self.hear("a", "abcd")
        self.assertEqual(self.nodes["a"].counters.total("history_unknown"), unknown + 1)
        self.assertEqual(self.nodes["a"].answered, ["c", "d"])
        self.assertIn(INDEX["d"], {owner for number in range(SIZE) for owner in self.row("a", number)[1:]})


class PartedWorld(World):
    """Nodes in two parts, each with clients and changes of its own."""

    def __init__(self, chance: random.Random, two_rows: bool) -> None:
        super().__init__(chance, two_rows)
        self.add()
        self.clients_come()
        self.own, self.other = self.tables, dict(self.tables)

    def part(self, own: str) -> None:
        """Each hears those of its part."""
        for name, table in self.tables.items():
            table.update([Weighted(each, self.weights[each]) for each in "abcd" if (each in own) == (name in own)])
        for part in (own, sorted(set("abcd") - set(own))):
            for row, holders in enumerate(self.holders):
                holders |= {self.tables[part[0]].row(each)[0] for each in self.rows_of(row)}

    def rows_of(self, row: int) -> list[int]:
        return [row, self.second(row)] if self.two_rows else [row]

    def meet(self, own: str) -> None:
        """All hear each other again: first the guess, then rows, then what the others tell."""
        since = {name: table.rows for name, table in self.tables.items()}
        for name, table in self.tables.items():
            apart = [each for each in "abcd" if (each in own) != (name in own)]
            table.suppose([Weighted(each, self.weights[each]) for each in apart], since[name])

    def tell(self) -> None:
        """Everybody asks one of the other part."""
        self.settle()
        for name, asked in zip("abcd", "cdab", strict=True):
            self.tables[name].join(self.tables[asked].rows)


class PartedTests(SynchronousTestCase):
    """The tables alone."""

    def test_found_again(self) -> None:
        """Connections of both parts are found by a scheduler of either, as soon as they meet and later."""
        for two_rows in (False, True):
            world = PartedWorld(random.Random(20261130), two_rows)
            world.part("ab")
            world.meet("ab")
            # The rows are as they were, and who is wrongly scheduler may get packets of the others.
            self.assertEqual([world.lost(name) for name in "abcd"], [[]] * 4)
            world.tell()
            self.assertEqual([world.lost(name) for name in "abcd"], [[]] * 4)

    def test_guess_is_worth_it(self) -> None:
        """Without it connections are lost until somebody has told."""
        world = PartedWorld(random.Random(20261130), False)
        world.part("ab")
        self.assertNotEqual(world.lost("a"), [])

    def test_supposed_with_more_nodes(self) -> None:
        """With more nodes than a row remembers, heard one after the other: of two parts, each row has both owners."""
        index = {f"n{place}": place for place in range(12)}
        names = sorted(index)
        one, other = [[Weighted(name) for name in part] for part in (names[:5], names[5:])]
        tables = [RowTable(index, 1009) for _ in range(2)]
        for table, part in zip(tables, (one, other), strict=True):
            table.update(one + other)
            table.update(part)
        since = tables[0].rows
        apart = [tables[1].row(row)[0] for row in range(1009)]
        for heard in range(1, len(other) + 1):
            tables[0].suppose(other[:heard], since)
        self.assertEqual([tables[0].row(row)[1] for row in range(1009)], apart)
        tables[0].update(one + other)
        for row in range(1009):
            self.assertIn(apart[row], tables[0].row(row))

    def test_joined_alike(self) -> None:
        """Two that tell each other remember the same, in the same order."""
        one, other = (RowTable(INDEX, 1009) for _ in range(2))
        for table, parts in ((one, ("abcd", "ab", "a", "abcd")), (other, ("abcd", "cd", "dc", "c", "abcd"))):
            for part in parts:
                table.update([Weighted(name) for name in part])
        before = one.rows
        one.join(other.rows)
        other.join(before)
        self.assertEqual(one.rows, other.rows)
        self.assertEqual([one.row(row)[0] for row in range(1009)], list(array("H", before)[::4]))

    def test_join_refuses(self) -> None:
        """As what is learnt: rows of another table change nothing."""
        table = RowTable(INDEX, 101)
        table.update([Weighted("a")])
        before = table.rows
        self.assertRaises(ValueError, table.join, struct.pack("=HHHH", 9, NOBODY, NOBODY, NOBODY) * 101)
        self.assertRaises(ValueError, table.join, bytes(8))
        self.assertEqual(table.rows, before)
