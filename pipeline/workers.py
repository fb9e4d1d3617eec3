"""Worker processes beside a local run: numpy mostly holds Python's lock, so that threads would only take turns."""

import atexit
import contextlib
import functools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from chaffinch.pipeline import files

_WATCH_SECONDS = 0.2
_PROGRAM = "import sys; from chaffinch.pipeline.workers import serve; serve(sys.argv[1:])"


class Workers:
    """Processes that apply a function to items and add up what it returns.

    They are programs of their own rather than forks or children of multiprocessing: Beam's threads make forks unsafe,
    and a script that calls this library need not be importable. They end when this process does, however that ends.
    """

    def __init__(self, count: int, beam_options: Sequence[str]) -> None:
        """Starts the processes; they import while the first pipeline is built.

        Args:
            count: how many.
            beam_options: as on a command line; filesystems may need them.
        """
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(
                subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM, *beam_options],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | {"PYTHONPATH": path},
                )
            )
        self._threads = ThreadPoolExecutor(count, "worker")
        atexit.register(self._end)

    def _end(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().communicate()  # the end of its input is the end of the process

    def submit(self, function: str, items: bytes) -> Future[Any]:
        """Promises what `add_up` returns."""
        return self._threads.submit(self.add_up, function, items)

    def add_up(self, function: str, items: bytes) -> Any:
        """Lets an idle process work; waits until there is one, and until it is done.

        Args:
            function: a file that holds a pickled function of one item, which returns statistics with `merge`.
            items: a pickled list of at least one.

        Returns:
            The merged statistics.

        Raises:
            RuntimeError: the process was killed.
            Exception: what the function raised.
        """
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((function, items), process.stdin, protocol=5)
            process.stdin.flush()
            done, result = pickle.load(process.stdout)  # written by a process of our own
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise RuntimeError(
                f"a worker process ended with status {process.wait()}; was there memory left?"
            ) from error
        finally:
            self._idle.put(process)
        if not done:
            raise result
        return result


@functools.cache
def workers(count: int, beam_options: tuple[str, ...]) -> Workers:
    """The processes of this one; kept, since starting them takes a second."""
    return Workers(count, beam_options)


def serve(beam_options: Sequence[str]) -> None:
    """What a worker process does until its standard input ends.

    Args:
        beam_options: as on a command line.
    """
    if beam_options:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions

        FileSystems.set_options(PipelineOptions(list(beam_options)))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides what an interrupt means
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # whatever prints must not end up between the replies
        while True:
            try:
                function, items = pickle.load(requests)  # written by the process that started this one
            except EOFError:
                return
            try:
                reply = (True, _add_up(load_function(function), pickle.loads(items)))
            except Exception as error:
                error.add_note(traceback.format_exc())
                reply = (False, error)
            pickle.dump(reply, replies, protocol=5)
            replies.flush()


def _end_with(parent: int) -> None:
    """Ends this process soon after the one that started it, in the middle of its work: the next run may want others."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


@functools.lru_cache(maxsize=1)
def load_function(path: str) -> Callable[[Any], Any]:
    """A pickled function; it may hold many megabytes, hence a file that each process reads once."""
    function: Callable[[Any], Any] = pickle.loads(files.read_bytes(path))  # written by this run's own driver
    return function


def _add_up(function: Callable[[Any], Any], items: Sequence[Any]) -> Any:
    total = function(items[0])
    for item in items[1:]:
        total = total.merge(function(item))
    return total
