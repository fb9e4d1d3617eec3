"""Processes of this machine: what they are called in files that others read, and whether they still are."""

import contextlib
import functools
import os
import socket


def here() -> str:
    """Names the processes that this one can see by their numbers."""
    return f"{socket.gethostname()}-{process_space()}"


@functools.cache
def process_space() -> int:
    """The namespace of processes: containers on one machine may share its name, and then their numbers mean others.

    Returns:
        A number; 0 where the system does not tell.
    """
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return 0


def is_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def started_at(process: int) -> int:
    """When a process of this machine started, in the kernel's ticks since it booted; 0 where nothing tells."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/stat", "rb") as file:
        # The name, in parentheses, may hold anything.
        return int(file.read().rpartition(b")")[2].split()[19])
    return 0
