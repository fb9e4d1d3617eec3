"""A lock on a folder: who decides or emits there says so in a file, and whoever comes second is told and refuses.

On the local disk the kernel holds the lock and frees it when its holder ends, by whatever. Network filesystems may keep
such locks to one machine, and object stores have none: there the file counts, and its holder shows every few seconds
that it is alive. A holder that has not done so for two minutes is dead, and so is one of this machine whose process is
gone; their locks are taken over.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from chaffinch.pipeline.storage import files, listings
from chaffinch.pipeline.storage.processes import is_alive, process_space, started_at

BEAT_SECONDS = 15.0
STALE_SECONDS = 120.0
SETTLE_SECONDS = 1.0
"""How long whoever writes a lock into an object store waits to see whether another has written at the same moment."""

_log = logging.getLogger(__name__)


class LockError(Exception):
    """Somebody else works on the folder, or has taken it over; the message says who, and what to do."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        host: the machine's name.
        process: its process.
        command: what was started.
        since: when, in words.
        space: the process namespace, within which numbers of processes mean something; 0 where that is not known.
        started: when the process started, in the kernel's ticks, for numbers are used again; 0 where not known.
        token: of this very lock.
    """

    host: str
    process: int
    command: str
    since: str
    space: int
    started: int
    token: str

    @classmethod
    def this(cls, command: str) -> Self:
        """This process."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        process = os.getpid()
        space = process_space()
        return cls(socket.gethostname(), process, command, now, space, started_at(process), uuid.uuid4().hex)

    @classmethod
    def read(cls, content: bytes) -> Self | None:
        """What a lock's file says; None where it says nothing."""
        try:
            found = json.loads(content)
            return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process that this one can see."""
        return self.host == socket.gethostname() and self.space == process_space()

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this machine, and is no more."""
        return self.is_here and not (is_alive(self.process) and started_at(self.process) == self.started)

    def dump(self) -> bytes:
        """What its lock's file says."""
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()


@contextlib.contextmanager
def holding(folder: str, command: str) -> Iterator[None]:
    """Holds a folder, so that no other process works on what is in it.

    Args:
        folder: a folder on any filesystem; made if need be.
        command: what this process is about to do, for whoever comes second.

    Raises:
        LockError: somebody else holds it, and the block is not entered; or has taken it over meanwhile, which is told
            at the end of the block.
        OSError: the folder cannot be written.
    """
    path = files.join(folder, "lock.json")
    lock = (_LocalLock if files.is_local(path) else _ObjectLock)(path, Holder.this(command))
    lock.take()
    over = threading.Event()
    beats = threading.Thread(target=_beat, args=(lock, over), name=f"holds {folder}", daemon=True)
    beats.start()
    try:
        yield
        if not lock.is_mine():
            raise LockError(
                f"{folder} was taken over while this process seemed dead ({path} is another's or gone): what is there "
                "may be of both; run the same command again when nobody else works there"
            )
    finally:
        over.set()
        beats.join()
        lock.free()


def _beat(lock: "_LocalLock | _ObjectLock", over: threading.Event) -> None:
    """Shows now and then that the holder is alive."""
    while not over.wait(BEAT_SECONDS):
        try:
            if lock.is_mine():
                lock.show_life()
        except Exception as error:  # the next time may do; if none does, others will take the lock over
            _log.warning("the lock %s cannot be renewed: %s", lock.path, error)


class _LocalLock:
    """A file that the kernel locks."""

    def __init__(self, path: str, me: Holder) -> None:
        self.path = path
        self._me = me
        self._handle = -1

    def take(self) -> None:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        while True:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                locked = self._lock()
                if self.is_mine():  # else whoever had it removed the file meanwhile
                    holder, age = Holder.read(os.pread(self._handle, 1 << 16, 0)), self._age()
                    if locked is None:
                        free = holder is None or holder.is_gone or age > STALE_SECONDS
                    else:  # of other machines the kernel may know nothing
                        free = locked and (holder is None or holder.is_here or age > STALE_SECONDS)
                    if not free:
                        raise LockError(_explain(self.path, holder, age))
                    break
            except BaseException:
                self._close()
                raise
            self._close()
        if holder is not None:
            _log.warning("%s: taken over from %s, which is dead", self.path, _name(holder))
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, self._me.dump(), 0)

    def is_mine(self) -> bool:
        """Whether the file in this place is the one that is held."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        return False

    def show_life(self) -> None:
        os.utime(self._handle)

    def free(self) -> None:
        with contextlib.suppress(OSError):
            if self.is_mine():
                os.unlink(self.path)
        self._close()

    def _lock(self) -> bool | None:
        """Whether the kernel gives us its lock; None on filesystems that know no locks."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
            return None
        return True

    def _age(self) -> float:
        """Seconds since the holder's last sign of life, by the clock of the filesystem."""
        probe = files.temporary_name(self.path)
        with open(probe, "wb"):
            now = os.stat(probe).st_mtime
        os.unlink(probe)
        return now - os.fstat(self._handle).st_mtime

    def _close(self) -> None:
        os.close(self._handle)


class _ObjectLock:
    """An object that says who holds the lock."""

    def __init__(self, path: str, me: Holder) -> None:
        self.path = path
        self._me = me

    def take(self) -> None:
        if found := listings.info(self.path):
            holder = Holder.read(files.read_bytes(self.path))
            age = time.time() - found.modified
            if age < STALE_SECONDS and not (holder is not None and holder.is_gone):
                raise LockError(_explain(self.path, holder, age))
            if holder is not None:
                _log.warning("%s: taken over from %s, which is dead", self.path, _name(holder))
        self.show_life()
        # Two may have found nothing at the same moment; the one who wrote last has it.
        time.sleep(SETTLE_SECONDS)
        if not self.is_mine():
            raise LockError(_explain(self.path, Holder.read(files.read_bytes(self.path)), 0.0))

    def is_mine(self) -> bool:
        holder = Holder.read(files.read_bytes(self.path)) if files.exists(self.path) else None
        return holder is not None and holder.token == self._me.token

    def show_life(self) -> None:
        files.write_bytes(self.path, self._me.dump())

    def free(self) -> None:
        with contextlib.suppress(OSError):
            if self.is_mine():
                files.remove(self.path)


def _name(holder: Holder) -> str:
    return f"`{holder.command}` (process {holder.process} on {holder.host}, since {holder.since})"


def _explain(path: str, holder: Holder | None, age: float) -> str:
    folder = path.rpartition("/")[0]
    who = "another process" if holder is None else _name(holder)
    return (
        f"{folder}: {who} is at work there, last seen {max(age, 0):.0f} s ago, and two would overwrite each other's "
        f"files: wait for it or stop it, or give this experiment an output: of its own. One that is dead loses its "
        f"lock {STALE_SECONDS:.0f} s after it was last seen; where you know that it is, delete {path}"
    )
