"""Running one function over all shards with Beam, on whatever runner, and adding up what it returns."""

import pickle
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import GlobalWindows

from chaffinch.pipeline.engines.counters import count_result
from chaffinch.pipeline.engines.elsewhere import run_elsewhere
from chaffinch.pipeline.engines.local_workers import Workers, load_function, stop_workers, workers
from chaffinch.pipeline.engines.runners import named_runner
from chaffinch.pipeline.storage import files

_MOST_AT_ONCE = 64

Item = TypeVar("Item")


def set_up_filesystems(beam_options: Sequence[str]) -> None:
    """Tells Beam's filesystems of endpoints and credentials; needed before the first listing, ahead of any pipeline.

    Args:
        beam_options: as on a command line.
    """
    FileSystems.set_options(PipelineOptions(list(beam_options)))


class QuickOptions(PipelineOptions):
    """Beam's options, each group of which is parsed once: for one job Beam asks for some of them a hundred times."""

    def view_as(self, cls: type[Any]) -> Any:
        """A group of options; all groups share their values, so that one that is kept sees what others change."""
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


@dataclass(frozen=True)
class Engine:
    """Where Beam runs.

    Attributes:
        workers: how many shards are worked on at once by the local runner.
        beam_options: Beam's options as on a command line; of two that disagree the later one holds.
        in_processes: whether the local runner scores in worker processes too, rather than in threads.
        flink_rest: host:port of Flink's JobManager, where jobs can be ended.
    """

    workers: int = 1
    beam_options: tuple[str, ...] = ()
    in_processes: bool = False
    flink_rest: str | None = None

    def options(self, label: str, threads: int) -> PipelineOptions:
        """Beam's options for one job of this engine.

        Args:
            label: what the job does; whoever watches a cluster sees it.
            threads: of the local runner.
        """
        words = re.sub("[^a-z]+", "-", label.lower())
        local = [f"--job_name=chaffinch-{words}-{uuid.uuid4().hex[:8]}", f"--direct_num_workers={threads}"]
        local += [f"--direct_running_mode={'multi_threading' if threads > 1 else 'in_memory'}"]
        options = QuickOptions([*local, *self.beam_options])
        FileSystems.set_options(options)
        return options

    @property
    def processes(self) -> int:
        """How many worker processes share the work; 0 where Beam's own workers do it."""
        return self.workers if self.workers > 1 and self.is_local else 0

    @property
    def is_local(self) -> bool:
        """Whether the work is done on this machine, by threads or worker processes of this process."""
        return named_runner(self.beam_options) is None

    @property
    def scores_in_threads(self) -> bool:
        """Whether what scores are threads of this process, which can share what it holds."""
        return self.is_local and not (self.in_processes and self.processes)

    def start_workers(self) -> Workers:
        """The worker processes; started when first asked for."""
        return workers(self.processes, self.beam_options)

    def stop_workers(self) -> None:
        """Ends the worker processes, whatever they do, so that nothing goes on after a failure."""
        stop_workers(self.processes, self.beam_options)

    def run(self, label: str, build: Callable[[beam.Pipeline], object], threads: int | None = None) -> None:
        """Builds a pipeline and waits for its end.

        Args:
            label: what it does.
            build: adds the steps.
            threads: of the local runner; one per worker by default.

        Raises:
            Exception: whatever failed in a step.
        """
        options = self.options(label, threads or self.workers)
        # Named explicitly: Beam's default runner may try to fetch another runner's program from the network.
        runner = options.view_as(StandardOptions).runner or FnApiRunner()
        pipeline = beam.Pipeline(runner=runner, options=options)
        build(pipeline)
        if self.is_local:
            pipeline.run().wait_until_finish()
        else:
            run_elsewhere(pipeline, self.flink_rest)


class AddUp(beam.CombineFn):
    """Merges what shards return; the order does not matter."""

    def create_accumulator(self) -> Any:  # noqa: D102
        return None

    def add_input(self, total: Any, part: Any) -> Any:  # noqa: D102
        return part if total is None else total.merge(part)

    def merge_accumulators(self, totals: Iterable[Any]) -> Any:  # noqa: D102
        merged = None
        for total in totals:
            if total is not None:
                merged = self.add_input(merged, total)
        return merged

    def extract_output(self, total: Any) -> Any:  # noqa: D102
        return total


@dataclass(frozen=True)
class CallFromFile:
    """A function that Beam need not carry: runners limit the size of a pipeline.

    Attributes:
        path: a file that holds it, pickled.
    """

    path: str

    def __call__(self, item: Any) -> Any:
        """Calls it, and counts what becomes of the item."""
        return count_result(load_function(self.path)(item))


@dataclass
class CallStep:
    """A step of Beam's as a function that worker processes call.

    Attributes:
        step: yields one result for each item.
    """

    step: beam.DoFn

    def __call__(self, item: Any) -> Any:
        """Works on one item; the step sets itself up where it has not."""
        return next(iter(self.step.process(item)))

    def close(self) -> None:
        """Lets go of what the step holds."""
        self.step.teardown()


# Failures in worker processes, by the file that holds the function. Beam would pass on their text alone.
_failures: dict[str, BaseException] = {}


class WorkInProcesses(beam.DoFn):
    """Hands work to the worker processes, all of it before any is waited for, so that one thread of Beam's will do."""

    def __init__(self, engine: Engine, function: str) -> None:
        """Keeps the settings.

        Args:
            engine: how many processes there are.
            function: a file that holds a pickled function of one item, which returns statistics.
        """
        self._engine = engine
        self._function = function
        self._sums: list[Future[Any]] = []

    def process(self, items: bytes) -> None:
        """Works on some items, a pickled list."""
        self._sums.append(self._engine.start_workers().submit(self._function, items))

    def finish_bundle(self) -> Iterator[Any]:
        """Adds up what comes of them, in their order; what was added is let go, for there are thousands of sums."""
        total, waiting = None, deque(self._sums)
        self._sums.clear()
        while waiting:
            one = waiting.popleft()
            if error := one.exception():  # waits
                _failures[self._function] = error
                return
            total = one.result() if total is None else total.merge(one.result())
        if total is not None:
            yield GlobalWindows.windowed_value(count_result(total))


def add_up(
    engine: Engine, label: str, items: Sequence[Item], work: beam.DoFn | Callable[[Item], Any], scratch: str
) -> Any:
    """Works on every item and adds up what comes of it.

    Args:
        engine: where to run.
        label: what is done, a verb: Beam shows it.
        items: small descriptions of the work, one per shard.
        work: a function of one item that returns statistics with `merge`, or a DoFn that yields them.
        scratch: a folder on a filesystem that workers and driver share; the sum passes through it.

    Returns:
        The merged statistics; None where there are no items.
    """
    if not items:
        return None

    path = files.temporary_name(files.join(scratch, "sum"))
    # Worker processes keep what they have read under this name.
    function = files.temporary_name(files.join(scratch, f"function-{uuid.uuid4().hex}"))
    elements: Sequence[Any] = items
    threads, most = None, _MOST_AT_ONCE
    if isinstance(work, beam.DoFn) and engine.is_local and not engine.scores_in_threads:
        work, most = CallStep(work), 1  # steps take their time over an item
    if isinstance(work, beam.DoFn):
        step = beam.ParDo(work) | "Count" >> beam.Map(count_result)
    elif b"__main__" in (pickled := pickle.dumps(work)):
        step = beam.Map(work) | "Count" >> beam.Map(count_result)  # only Beam's pickler can send what a script defines
    else:
        files.write_bytes(function, pickled)
        step = beam.Map(CallFromFile(function))
        if engine.processes:
            # As bytes, since Beam would pickle item by item, several times.
            elements = [pickle.dumps(part) for part in _portions(items, engine.processes, most)]
            engine.start_workers()  # while Beam starts
            step, threads = beam.ParDo(WorkInProcesses(engine, function)), 1

    def build(pipeline: beam.Pipeline) -> object:
        listed = pipeline | "List" >> beam.Create(elements, reshuffle=False)
        # One thread has nobody to share elements with. Every step less spares each job some milliseconds.
        asked_for = pipeline.options.view_as(DirectOptions).direct_num_workers
        alone = threads == 1 or (engine.is_local and asked_for == 1)
        return (
            (listed if alone else listed | beam.Reshuffle())
            | label >> step
            | "Add up" >> beam.CombineGlobally(AddUp()).without_defaults()
            | "Write the sum" >> beam.Map(_write_pickle, path)
        )

    try:
        engine.run(label, build, threads)
        if function in _failures:
            raise _failures.pop(function)
        return _read_pickle(path)
    except BaseException:
        engine.stop_workers()
        raise
    finally:
        files.remove(path)
        files.remove(function)


def _portions(items: Sequence[Item], processes: int, most: int) -> Iterator[Sequence[Item]]:
    """What worker processes get at once: much at first, so that few sums come back, little so that all end together."""
    start = 0
    while start < len(items):
        size = min(-(-(len(items) - start) // (4 * processes)), most)
        yield items[start : start + size]
        start += size


def _write_pickle(value: object, path: str) -> None:
    files.write_bytes(path, pickle.dumps(value, protocol=5))


def _read_pickle(path: str) -> Any:
    return pickle.loads(files.read_bytes(path))  # written a moment ago by this run's own worker
