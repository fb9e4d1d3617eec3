"""What Beam counts while it works, for whatever page a runner shows.

Namespaces are `scorers.<name>`, `filters.<name>`, `shards` and `decisions`, each with counters such as `samples`. A
runner that tries something again counts it again: exact numbers are in summary.json and timings.json. Outside a
pipeline nothing happens.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from apache_beam.metrics import Metrics


@runtime_checkable
class Counted(Protocol):
    """What a function made of an item, where it is worth being counted."""

    def beam_counts(self) -> Mapping[str, Mapping[str, int]]:
        """Namespace -> counter -> by how much it grew."""


def count_result(result: Any) -> Any:
    """Counts what became of an item, and passes it on."""
    if isinstance(result, Counted):
        for namespace, counts in result.beam_counts().items():
            for name, value in counts.items():
                Metrics.counter(namespace, name).inc(value)
    return result


def watch_batch(scorer: str, seconds: float, fill: float) -> None:
    """Notes how long a scorer took for a batch, and which share of the batch's room was used, in (0, 1]."""
    Metrics.distribution(f"scorers.{scorer}", "batch_milliseconds").update(_thousands(seconds))
    Metrics.distribution(f"scorers.{scorer}", "batch_fill_percent").update(round(100 * fill))


def watch_shard(seconds: float) -> None:
    """Notes how long a shard took to be scored."""
    Metrics.distribution("shards", "milliseconds").update(_thousands(seconds))


def _thousands(seconds: float) -> int:
    return round(1000 * seconds)
