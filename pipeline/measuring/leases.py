"""Leases of a host's GPUs: worker processes and threads spread over them through lock files, without being told.

A GPU has as many slots as workers ever used it at once, each a file that its holder keeps locked. The kernel frees the
lock when the holder ends, however that ends. Who wants a GPU looks, one at a time, how many slots of each are held, and
takes one of those with the fewest: so a second worker comes to a GPU only when all others have one too.
"""

import contextlib
import fcntl
import glob
import itertools
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence

_GPU = re.compile(r"/dev/nvidia([0-9]+)")
# CUDA reads the list up to the first entry that names no device.
_NO_DEVICE = ("", "-1", "NoDevFiles")


def visible_gpus() -> list[str]:
    """Names the GPUs that this process may use, in CUDA's order, so that `cuda:<position>` is that GPU.

    Returns:
        The entries of CUDA_VISIBLE_DEVICES where it is set, else the numbers of the NVIDIA devices of this machine.
        Processes lease from each other only what they call by the same name, so either all or none should have the
        variable, and use either numbers or identifiers in it.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        entries = [entry.strip() for entry in named.split(",")]
        return list(itertools.takewhile(lambda entry: entry not in _NO_DEVICE, entries))
    numbers = [int(match[1]) for path in glob.glob("/dev/nvidia[0-9]*") if (match := _GPU.fullmatch(path))]
    return [str(number) for number in sorted(numbers)]


class Lease:
    """A GPU that this worker may use until it gives it back or ends.

    Attributes:
        position: its place among the GPUs that were asked for.
        gpu: its name.
    """

    def __init__(self, position: int, gpu: str, handle: int) -> None:
        """Keeps a locked slot.

        Args:
            position: place among the GPUs that were asked for.
            gpu: its name.
            handle: descriptor of the slot's file, locked.
        """
        self.position = position
        self.gpu = gpu
        self._handle: int | None = handle

    def release(self) -> None:
        """Gives the GPU back; more than once is no error."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _unlock(handle)


def lease(gpus: Sequence[str], folder: str | None = None) -> Lease:
    """Leases one of several GPUs, one that the fewest workers use.

    Args:
        gpus: names, as from `visible_gpus`; at least one. Of those with equally few workers the first is taken.
        folder: where the lock files are; one per user below the folder for temporary files by default.

    Returns:
        The lease.

    Raises:
        OSError: lock files cannot be made there; names the folder and the remedy.
    """
    place = folder or _own_folder()
    os.makedirs(place, mode=0o700, exist_ok=True)
    with _alone(place):
        held, free = {}, {}
        for gpu in gpus:
            held[gpu], free[gpu] = _slots(place, gpu)
        position = min(range(len(gpus)), key=lambda number: held[gpus[number]])
        handle = _lock(free[gpus[position]])
        assert handle is not None  # nobody else takes a slot meanwhile
        return Lease(position, gpus[position], handle)


def _slots(place: str, gpu: str) -> tuple[int, str]:
    """How many workers hold a GPU, and the path of its first free slot."""
    name = re.sub(r"[^A-Za-z0-9-]", "_", gpu)
    held, known, free = 0, 0, ""
    while os.path.exists(path := os.path.join(place, f"{name}.{known}")):
        known += 1
        handle = _lock(path)
        if handle is None:
            held += 1
        else:
            _unlock(handle)
            free = free or path
    return held, free or path


def _lock(path: str) -> int | None:
    """Locks a file and returns its descriptor, which programs started later do not inherit; None where it is locked."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _unlock(handle: int) -> None:
    """Unlocks a file and closes it.

    Closing alone would leave it locked for as long as a program that is just being started has not dropped its copy.
    """
    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


@contextlib.contextmanager
def _alone(place: str) -> Iterator[None]:
    """Waits until nobody else is choosing a GPU."""
    handle = os.open(os.path.join(place, "choosing"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        _unlock(handle)


def _own_folder() -> str:
    """A folder that only this user can write to; others may have put anything under its name into a shared one."""
    own = os.path.join(tempfile.gettempdir(), f"chaffinch-{os.getuid()}")
    os.makedirs(own, mode=0o700, exist_ok=True)
    status = os.lstat(own)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise OSError(f"{own} belongs to somebody else: name another folder for temporary files in TMPDIR")
    return os.path.join(own, "gpus")
