"""Worker processes beside a local run: numpy mostly holds Python's lock, so that threads would only take turns."""

import atexit
import contextlib
import functools
import logging
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

from chaffinch.pipeline.storage import files

_WATCH_SECONDS = 0.2
_PROGRAM = "import sys; from chaffinch.pipeline.engines.local_workers import serve; serve(sys.argv[1:3], sys.argv[3:])"
_LOGGERS = ("", "chaffinch")


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
        settings = {"PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)}
        # Libraries would use all cores in each of the processes.
        settings["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // count))
        # What is logged here is logged there, from the first import on.
        levels = [str(logging.getLogger(name).getEffectiveLevel()) for name in _LOGGERS]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, *levels, *beam_options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | settings,
            )
            for _ in range(count)
        ]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count, "worker")
        atexit.register(self._end)

    def _end(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().communicate()  # the end of its input is the end of the process

    def stop(self) -> None:
        """Ends the processes whatever they do, and forgets what they were to do: files are written whole or not at all.

        Whoever waits for them gets an error.
        """
        atexit.unregister(self._end)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

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


_started: dict[tuple[int, tuple[str, ...]], Workers] = {}


def workers(count: int, beam_options: tuple[str, ...]) -> Workers:
    """The processes of this one; kept, since starting them takes a second."""
    if (count, beam_options) not in _started:
        _started[count, beam_options] = Workers(count, beam_options)
    return _started[count, beam_options]


def stop_workers(count: int, beam_options: tuple[str, ...]) -> None:
    """Ends the processes that `workers` has started, if it has, so that nothing goes on after a failure."""
    if known := _started.pop((count, beam_options), None):
        known.stop()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(levels: Sequence[str], beam_options: Sequence[str]) -> None:
    """What a worker process does until its standard input ends.

    Args:
        levels: from which on everybody's messages are logged, and this package's.
        beam_options: as on a command line.
    """
    logging.basicConfig(stream=sys.stderr)
    for name, level in zip(_LOGGERS, levels, strict=True):
        logging.getLogger(name).setLevel(int(level))
    if beam_options:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions

        FileSystems.set_options(PipelineOptions(list(beam_options)))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides what an interrupt means
    held: str = ""
    function: Any = None
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # whatever prints must not end up between the replies
        while True:
            try:
                path, items = pickle.load(requests)  # written by the process that started this one
            except EOFError:
                return
            try:
                if path != held:
                    if hasattr(function, "close"):
                        function.close()  # models and a GPU go before others come
                    held, function = path, load_function(path)
                reply = (True, _add_up(function, pickle.loads(items)))
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
