"""Where a packet program meets an interface: XDP, and the ingress of tc. It stays when the node dies."""

from __future__ import annotations

import ctypes
import errno

from lbarray.kernel.libbpf import Program, library
from lbarray.kernel.links import link

__all__ = ["Classifier", "Xdp", "xdp_on"]

_INGRESS = 1
_REPLACE = 1


class _TcHook(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    ]


class _TcOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    ]


def xdp_on(interface: str) -> int:
    """The number of the XDP program on an interface, in the driver or before the kernel's own path; 0: there is none.

    :raises SystemRefused: there is no such interface, or no libbpf.
    """
    return _xdp(link(interface).index, 0)


def _xdp(ifindex: int, mode: int) -> int:
    found = ctypes.c_uint32(0)
    code = library().c.bpf_xdp_query_id(ifindex, mode, ctypes.byref(found))
    library().said.clear()
    return 0 if code else found.value


class Classifier:
    """A program attached to the ingress of an interface. ``detach`` may be called again.

    :ivar number: of the program that was attached; 0: none was, by this object.
    """

    HANDLE = 1
    PRIORITY = 1

    def __init__(self, ifindex: int, interface: str) -> None:
        self.number = 0
        self._ifindex = ifindex
        self._interface = interface

    def _hook(self) -> _TcHook:
        return _TcHook(size=ctypes.sizeof(_TcHook), ifindex=self._ifindex, attach_point=_INGRESS)

    def attach(self, program: Program) -> None:
        """In place of any other that has our handle.

        :raises SystemRefused: the kernel would not.
        """
        number, hook = program.number, self._hook()
        code = library().c.bpf_tc_hook_create(ctypes.byref(hook))
        if code and abs(code) != errno.EEXIST:
            raise library().refused(f"prepare {self._interface} for a classifier", code)
        options = _TcOptions(
            size=ctypes.sizeof(_TcOptions),
            prog_fd=program.fd,
            flags=_REPLACE,
            handle=self.HANDLE,
            priority=self.PRIORITY,
        )
        code = library().c.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
        if code:
            raise library().refused(f"attach the classifier to {self._interface}", code)
        self.number = number

    def found(self) -> int:
        """The number of the program that is there now; 0: there is none."""
        hook = self._hook()
        options = _TcOptions(size=ctypes.sizeof(_TcOptions), handle=self.HANDLE, priority=self.PRIORITY)
        code = library().c.bpf_tc_query(ctypes.byref(hook), ctypes.byref(options))
        library().said.clear()
        return 0 if code else options.prog_id

    def detach(self) -> None:
        """Take ours away, or what has our handle if we do not know which is ours; what others attached stays."""
        if self.number and self.found() != self.number:
            return
        hook = self._hook()
        options = _TcOptions(size=ctypes.sizeof(_TcOptions), handle=self.HANDLE, priority=self.PRIORITY)
        library().c.bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
        library().said.clear()


class Xdp:
    """A program attached before the kernel makes a buffer of a packet. ``detach`` may be called again.

    :param generic: in the kernel's own receive path instead of the driver's: works everywhere, costs a copy.
    :ivar number: of the program that was attached; 0: none was, by this object.
    """

    UPDATE_IF_NOEXIST, SKB_MODE, DRV_MODE = 1, 2, 4

    def __init__(self, ifindex: int, interface: str, *, generic: bool) -> None:
        self.number = 0
        self._ifindex = ifindex
        self._interface = interface
        self._mode = self.SKB_MODE if generic else self.DRV_MODE

    def attach(self, program: Program) -> None:
        """:raises SystemRefused: the driver cannot, or another program is there already."""
        number = program.number
        code = library().c.bpf_xdp_attach(self._ifindex, program.fd, self._mode | self.UPDATE_IF_NOEXIST, None)
        if code:
            raise library().refused(f"attach an XDP program to {self._interface}", code)
        self.number = number

    def found(self) -> int:
        """The number of the program that is there now; 0: there is none."""
        return _xdp(self._ifindex, self._mode)

    def detach(self) -> None:
        """Take ours away, or what is there if we do not know which is ours."""
        if self.number and self.found() != self.number:
            return
        library().c.bpf_xdp_detach(self._ifindex, self._mode, None)
        library().said.clear()
