"""Takes the network away from this process and its children, native code too: the kernel ends whoever asks for it."""

from __future__ import annotations

import ctypes
import platform
import signal
import struct
from typing import Final

KILLED: Final = -signal.SIGSYS
_NUMBERS: Final = {  # by machine: AUDIT_ARCH, and what reaches out: connect, sendto, sendmsg, sendmmsg
    "x86_64": (0xC000003E, (42, 44, 46, 307)),
    "aarch64": (0xC00000B7, (203, 206, 211, 269)),
}
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_KILL_PROCESS, _ALLOW = 0x8000_0000, 0x7FFF_0000
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # BPF: load a word of `seccomp_data`, jump if equal, return


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def take_the_network_away() -> None:
    """From now on a process that reaches out, even to look a host up, is killed with SIGSYS."""
    architecture, calls = _NUMBERS[platform.machine()]
    steps = [(_LOAD, 0, 0, 4), (_EQUALS, 0, len(calls) + 1, architecture), (_LOAD, 0, 0, 0)]
    steps += [(_EQUALS, len(calls) - at, 0, call) for at, call in enumerate(calls)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _KILL_PROCESS)]
    program = _Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    for what in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*what) != 0:
            raise OSError(ctypes.get_errno(), "the kernel has no seccomp filters: this test cannot run here")
