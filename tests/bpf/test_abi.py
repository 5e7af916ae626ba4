"""abi.h and abi.py say the same."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.bpf.build import HERE, compile_program
from lbarray.errors import SystemRefused
from lbarray.scheduler import abi

#: Of ELF: code.
_EXECUTABLE = 4


def _instructions(elf: bytes) -> Iterator[tuple[int, int, int]]:
    """Operation, registers and number of each instruction of a compiled program."""
    (sections,) = struct.unpack_from("=Q", elf, 40)
    size, count = struct.unpack_from("=HH", elf, 58)
    for at in range(sections, sections + size * count, size):
        flags, _, begin, length = struct.unpack_from("=QQQQ", elf, at + 8)
        wide = False
        for place in range(begin, begin + length, 8) if flags & _EXECUTABLE else ():
            code, registers, _, number = struct.unpack_from("=BBhi", elf, place)
            if not wide:
                yield code, registers, number
            wide = code == 0x18 and not wide  # the second half of a number of 64 bits


class AbiTests(SynchronousTestCase):
    """What C and Python share."""

    def test_constants(self) -> None:
        """Every number that the header defines has the same name and value in Python."""
        found = re.findall(r"#define (\w+) (0x[0-9a-f]+|\d+)\n", (HERE / "abi.h").read_text())
        self.assertGreater(len(found), 8)
        for name, value in found:
            self.assertEqual(int(value, 0), getattr(abi, name), name)

    def test_verdicts(self) -> None:
        """Every verdict has the same number and name in both."""
        text = (HERE / "abi.h").read_text()
        pattern = r"\b((?:FORWARDED|PASSED_\w+|DROPPED_\w+)) = (\d+)"
        found = {name: int(number) for name, number in re.findall(pattern, text)}
        self.assertEqual(found, {verdict.name: int(verdict) for verdict in abi.Verdict})

    def test_choices(self) -> None:
        """So has every way to choose."""
        found = re.search(r"enum choice {(.*?)}", (HERE / "abi.h").read_text())
        assert found is not None
        names = dict(re.findall(r"(\w+) = (\d+)", found[1]))
        self.assertEqual({name: int(number) for name, number in names.items()}, dict(abi.Choice.__members__))

    def test_sizes(self) -> None:
        """A C compiler finds the sizes that struct finds."""
        formats = {
            "config": abi.CONFIG,
            "service_key": abi.SERVICE_KEY,
            "service": abi.SERVICE,
            "front": abi.FRONT,
            "row": abi.ROW,
            "worker": abi.WORKER,
            "cost": abi.COST,
            "memory": abi.MEMORY,
            "fragment": abi.FRAGMENT,
            "fate": abi.FATE,
            "tally": abi.TALLY,
            "share": abi.SHARE,
            "too_big": abi.TOO_BIG,
        }
        folder = Path(self.mktemp())
        folder.mkdir()
        lines = "".join(f'printf("%zu ", sizeof(struct {name}));' for name in formats)
        source = folder / "sizes.c"
        source.write_text(f'#include <stdio.h>\n#include <linux/types.h>\n#include "abi.h"\nint main(){{{lines}}}')
        command = ["clang", "-I", str(HERE), str(source), "-o", str(folder / "sizes")]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                raise
            raise SkipTest("clang is not installed") from None
        out = subprocess.run([str(folder / "sizes")], check=True, capture_output=True, text=True).stdout
        self.assertEqual([int(size) for size in out.split()], [each.size for each in formats.values()])


class BuildTests(SynchronousTestCase):
    """Compiling."""

    def test_nothing_that_linux_5_10_lacks(self) -> None:
        """No helper, kind of map or instruction is newer than that."""
        helpers, atomic = set(), set()
        for code, registers, number in _instructions(self.built().read_bytes()):
            if code == 0x85 and registers >> 4 == 0:
                helpers.add(number)
            elif code in (0xC3, 0xDB):
                atomic.add(number)
        self.assertIn(1, helpers)  # bpf_map_lookup_elem
        self.assertLessEqual(max(helpers), 155)  # bpf_redirect_peer is the last one of 5.10
        self.assertEqual(atomic, {0})  # additions that return nothing: others came with 5.12
        kinds = set(re.findall(r"BPF_MAP_TYPE_(\w+)", (HERE / "maps.h").read_text()))
        old = {"ARRAY", "HASH", "PERCPU_ARRAY", "LRU_HASH", "ARRAY_OF_MAPS", "PERF_EVENT_ARRAY", "RINGBUF"}
        self.assertEqual(kinds - old, set())

    def test_builds(self) -> None:
        """The sources compile without a warning."""
        self.assertTrue(self.built("-Werror").exists())

    def built(self, *options: str) -> Path:
        try:
            return compile_program(HERE / "scheduler.bpf.c", Path(self.mktemp()), *options)
        except SystemRefused as error:
            if "clang" in error.detail and not os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                raise SkipTest(str(error)) from None
            raise
