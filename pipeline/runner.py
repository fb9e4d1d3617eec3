"""Running one function over all shards with Beam, on whatever runner, and adding up what it returns."""

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from chaffinch.pipeline import files

Item = TypeVar("Item")


class Summable(Protocol):
    """Statistics of some shards, which add up to those of all."""

    def merge(self, other: Self) -> Self:
        """Adds another part; may change and return `self`."""
        ...


@dataclass(frozen=True)
class Engine:
    """Where Beam runs.

    Attributes:
        workers: how many shards are worked on at once by the local runner.
        beam_options: further Beam options as on a command line; they win.
    """

    workers: int = 1
    beam_options: tuple[str, ...] = ()

    def options(self) -> PipelineOptions:
        """Beam's options for this engine."""
        local = [f"--direct_num_workers={self.workers}"]
        local += [f"--direct_running_mode={'multi_threading' if self.workers > 1 else 'in_memory'}"]
        options = PipelineOptions([*local, *self.beam_options])
        FileSystems.set_options(options)
        return options

    def run(self, build: Callable[[beam.Pipeline], object]) -> None:
        """Builds a pipeline and waits for its end.

        Args:
            build: adds the steps.

        Raises:
            Exception: whatever failed in a step.
        """
        options = self.options()
        # Named explicitly: Beam's default runner may try to fetch another runner's program from the network.
        runner = options.view_as(StandardOptions).runner or FnApiRunner()
        pipeline = beam.Pipeline(runner=runner, options=options)
        build(pipeline)
        pipeline.run().wait_until_finish()


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
    step = beam.ParDo(work) if isinstance(work, beam.DoFn) else beam.Map(work)

    def build(pipeline: beam.Pipeline) -> object:
        return (
            pipeline
            | "List" >> beam.Create(items)
            | beam.Reshuffle()
            | label >> step
            | "Add up" >> beam.CombineGlobally(AddUp()).without_defaults()
            | "Write the sum" >> beam.Map(_write_pickle, path)
        )

    engine.run(build)
    try:
        return _read_pickle(path)
    finally:
        files.remove(path)


def _write_pickle(value: object, path: str) -> None:
    files.write_bytes(path, pickle.dumps(value, protocol=5))


def _read_pickle(path: str) -> Any:
    return pickle.loads(files.read_bytes(path))  # written a moment ago by this run's own worker
