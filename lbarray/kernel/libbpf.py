"""libbpf through ctypes: load an object, fill its maps, run a program on a packet.

Only what the planes use. Every refusal of the kernel becomes a :class:`SystemRefused`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import struct
from collections.abc import Callable
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE, mmap
from pathlib import Path

from lbarray.errors import SystemRefused

__all__ = ["Map", "MappedArray", "ObjectFile", "Program", "library", "maps_of", "possible_cpus"]

_PRINTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_ADVICE = {
    errno.EPERM: "run the node as root (CAP_BPF and CAP_NET_ADMIN), outside of unprivileged containers",
    errno.EACCES: "run the node as root (CAP_BPF and CAP_NET_ADMIN)",
    errno.ENOMEM: "raise the limit of locked memory (systemd: LimitMEMLOCK=infinity)",
}


class _TestRun(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


class _MapCreate(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    ]


class _ProgramInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("lengths", ctypes.c_uint32 * 2),
        ("instructions", ctypes.c_uint64 * 2),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
    ]


class _MapInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("sizes", ctypes.c_uint32 * 4),
        ("name", ctypes.c_char * 16),
    ]


#: ``struct __sk_buff``, but for gso_segs and gso_size nothing.
_SK_BUFF = struct.Struct("=164xI8xI12x")
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
_MOST_MAPS = 64


class Library:
    """The shared object with the signatures that we use; loaded when first needed."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("bpf") or "libbpf.so.1"
        try:
            self.c = ctypes.CDLL(name, use_errno=True)
        except OSError:
            raise SystemRefused(
                "load libbpf", detail="libbpf.so.1 is missing", advice="apt-get install libbpf1"
            ) from None
        for function in (
            "bpf_object__open_file",
            "bpf_object__find_map_by_name",
            "bpf_object__find_program_by_name",
        ):
            getattr(self.c, function).restype = ctypes.c_void_p
        self.c.bpf_object__open_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
        for function in ("bpf_object__load", "bpf_object__close", "bpf_map__fd", "bpf_program__fd"):
            getattr(self.c, function).argtypes = [ctypes.c_void_p]
        for function in ("bpf_object__find_map_by_name", "bpf_object__find_program_by_name"):
            getattr(self.c, function).argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self.c.bpf_map__set_inner_map_fd.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self.c.bpf_program__set_autoload.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        self.c.bpf_obj_get_info_by_fd.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)]
        self.c.bpf_map_create.argtypes = [
            *(ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32),
            *(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
        ]
        self.c.bpf_map_update_elem.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64]
        self.c.bpf_map_lookup_elem.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
        self.c.bpf_map_delete_elem.argtypes = [ctypes.c_int, ctypes.c_char_p]
        self.said: list[str] = []
        self._printer = _PRINTER(self._print)
        self.c.libbpf_set_print(self._printer)
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def _print(self, level: int, template: bytes, arguments: int) -> int:
        if level <= 1:  # warnings and information; the rest is debugging
            text = ctypes.create_string_buffer(1024)
            self._vsnprintf(text, 1024, template, arguments)
            self.said.append(text.value.decode("utf-8", "replace").strip())
            del self.said[:-20]
        return 0

    def refused(self, tried: str, code: int) -> SystemRefused:
        """What the kernel and libbpf said of a failed call; ``code`` is an errno, of either sign."""
        number = abs(code) or ctypes.get_errno()
        said = "; ".join(line for line in self.said[-2:] if line)
        self.said.clear()
        detail = os.strerror(number) + (f" ({said[:500]})" if said else "")
        return SystemRefused(tried, errno=number, detail=detail, advice=_ADVICE.get(number, ""))


_libraries: list[Library] = []


def library() -> Library:
    if not _libraries:
        _libraries.append(Library())
    return _libraries[0]


def possible_cpus() -> int:
    """Processors that a per-CPU value has a slot for."""
    return int(library().c.libbpf_num_possible_cpus())


class Map:
    """One map of a loaded object. Keys and values are packed by the caller."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name

    def update(self, key: bytes, value: bytes) -> None:
        """:raises SystemRefused: full, or a wrong key."""
        code = library().c.bpf_map_update_elem(self.fd, key, value, 0)
        if code:
            raise library().refused(f"write the map {self.name}", code)

    def delete(self, key: bytes) -> None:
        """Remove a key; a missing one is no error."""
        code = library().c.bpf_map_delete_elem(self.fd, key)
        if code and abs(code) != errno.ENOENT and ctypes.get_errno() != errno.ENOENT:
            raise library().refused(f"delete from the map {self.name}", code)

    def lookup(self, key: bytes, size: int) -> bytes | None:
        """The value of ``size`` octets (for per-CPU maps: of all processors together)."""
        value = ctypes.create_string_buffer(size)
        code = library().c.bpf_map_lookup_elem(self.fd, key, value)
        return None if code else value.raw


class MappedArray(Map):
    """A new array that is in no object, written through shared memory: no system call, and no copy of each entry alone.

    :param value_size: octets of an entry, a multiple of eight.
    :raises SystemRefused: the kernel would not (it needs Linux 5.5).
    """

    def __init__(self, name: str, value_size: int, entries: int) -> None:
        options = _MapCreate(size=ctypes.sizeof(_MapCreate), map_flags=_MMAPABLE)
        kind = 2  # BPF_MAP_TYPE_ARRAY
        fd = library().c.bpf_map_create(kind, name.encode(), 4, value_size, entries, ctypes.byref(options))
        if fd < 0:
            raise library().refused(f"create the map {name}", fd)
        super().__init__(fd, name)
        try:
            self._memory = mmap(fd, value_size * entries, MAP_SHARED, PROT_READ | PROT_WRITE)
        except OSError as error:
            os.close(fd)
            raise library().refused(f"see the memory of the map {name}", error.errno or 0) from None

    def write(self, values: bytes) -> None:
        """Every entry at once. A program that reads meanwhile sees a mixture: write what none reads."""
        self._memory[:] = values

    def close(self) -> None:
        """Let go of it; another map that it is in keeps it. Idempotent."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.fd)


def _ask(fd: int, info: ctypes.Structure) -> None:
    """:raises SystemRefused: the kernel does not say what it knows of a program or a map."""
    size = ctypes.c_uint32(ctypes.sizeof(info))
    code = library().c.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
    if code:
        raise library().refused("ask the kernel for a program", code)


def maps_of(program_id: int) -> dict[str, Map]:
    """The maps of a loaded program of whomever, by their names. Whoever asks closes their descriptors.

    :raises SystemRefused: there is no such program, or no right to ask (CAP_SYS_ADMIN).
    """
    c = library().c
    fd = c.bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        raise library().refused(f"find the program {program_id}", fd)
    ids = (ctypes.c_uint32 * _MOST_MAPS)()
    info = _ProgramInfo(nr_map_ids=_MOST_MAPS, map_ids=ctypes.addressof(ids))
    found: dict[str, Map] = {}
    try:
        _ask(fd, info)
        for number in ids[: min(info.nr_map_ids, _MOST_MAPS)]:
            place = c.bpf_map_get_fd_by_id(number)
            if place < 0:
                raise library().refused(f"find the map {number}", place)
            known = _MapInfo()
            found[str(number)] = Map(place, str(number))
            _ask(place, known)
            name = known.name.decode()
            found[name] = Map(found.pop(str(number)).fd, name)
    except SystemRefused:
        for each in found.values():
            os.close(each.fd)
        raise
    finally:
        os.close(fd)
    return found


class Program:
    """One program of a loaded object."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name

    @property
    def number(self) -> int:
        """By which the kernel knows it, and tells it from all others that it has had."""
        info = _ProgramInfo()
        _ask(self.fd, info)
        return int(info.id)

    def test_run(self, packet: bytes, repeat: int = 1, segment: int = 0) -> tuple[int, bytes, int]:
        """Run on ``packet`` (BPF_PROG_TEST_RUN): the return value, the packet after it, nanoseconds per run.

        :param segment: octets that each of two packets had for its payload, if ``packet`` is to be one coalesced from
            them, for a classifier.
        """
        out = ctypes.create_string_buffer(max(len(packet) + 256, 512))
        run = _TestRun(
            size=ctypes.sizeof(_TestRun),
            data_in=packet,
            data_out=ctypes.cast(out, ctypes.c_void_p),
            data_size_in=len(packet),
            data_size_out=len(out),
            repeat=repeat,
        )
        if segment:
            context = ctypes.create_string_buffer(_SK_BUFF.pack(2, segment))
            run.ctx_in, run.ctx_size_in = ctypes.cast(context, ctypes.c_void_p), _SK_BUFF.size
        code = library().c.bpf_prog_test_run_opts(self.fd, ctypes.byref(run))
        if code:
            raise library().refused(f"run the program {self.name} on a packet", code)
        return run.retval, out.raw[: run.data_size_out], run.duration


class ObjectFile:
    """A compiled object, loaded into the kernel by :meth:`load` and freed by :meth:`close`.

    :raises SystemRefused: the file cannot be opened, or libbpf is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._object: int | None = library().c.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            raise library().refused(f"open the packet program {path}", ctypes.get_errno())

    def _found(self, what: str, find: Callable[..., int | None], name: str) -> int:
        handle = find(self._object, name.encode())
        if not handle:
            raise SystemRefused(f"find the {what} {name} in {self._path}", advice="build it anew: make bpf")
        return handle

    def use_inner(self, name: str, template: Map) -> None:
        """What is put into a map of maps will be like ``template``; before loading."""
        handle = self._found("map", library().c.bpf_object__find_map_by_name, name)
        code = library().c.bpf_map__set_inner_map_fd(handle, template.fd)
        if code:
            raise library().refused(f"prepare the map {name}", code)

    def leave_out(self, name: str) -> None:
        """Do not load a program; before loading."""
        handle = self._found("program", library().c.bpf_object__find_program_by_name, name)
        library().c.bpf_program__set_autoload(handle, False)

    def load(self) -> None:
        """:raises SystemRefused: the verifier or the kernel said no."""
        code = library().c.bpf_object__load(self._object)
        if code:
            raise library().refused(f"load the packet program {self._path.name}", code)

    def map(self, name: str) -> Map:
        """A map of the loaded object."""
        handle = self._found("map", library().c.bpf_object__find_map_by_name, name)
        return Map(library().c.bpf_map__fd(handle), name)

    def program(self, name: str) -> Program:
        """A program of the loaded object."""
        handle = self._found("program", library().c.bpf_object__find_program_by_name, name)
        return Program(library().c.bpf_program__fd(handle), name)

    def close(self) -> None:
        """Free it; what is attached stays attached. Idempotent."""
        if self._object:
            library().c.bpf_object__close(self._object)
            self._object = None
