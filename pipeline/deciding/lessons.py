"""What filters learn from a pool before they can score: pass after pass, until none has anything left to learn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from chaffinch.filters.filter import Filter
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.rows import FilterError, Part, Source, read_counts

Count = Callable[[str, Sequence[Part], Callable[[Part], Any]], Any]
"""Adds up what a function counts in every part; the label is shown by Beam."""


@dataclass
class Lessons:
    """What filters have counted.

    Attributes:
        counted: filter -> its statistics.
    """

    counted: dict[str, Any]

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        for name, part in other.counted.items():
            self.counted[name] = self.counted[name].merge(part)
        return self


@dataclass(frozen=True)
class CountLessons:
    """Lets filters count what they learn from.

    Attributes:
        source: where columns come from.
        filters: name -> filters that still learn.
    """

    source: Source
    filters: Mapping[str, Filter]

    def __call__(self, part: Part) -> Lessons:
        """Counts one shard."""
        counted = read_counts(part, self.source, list(self.filters.values()))
        return Lessons(dict(zip(self.filters, counted, strict=True)))


def teach(count: Count, pool: Pool, filters: Mapping[str, Filter]) -> dict[str, Filter]:
    """Lets filters learn from a pool; costs nothing where none does.

    As for shares of the pool, all measured values count, those of samples that another scorer rejects or that repeat a
    uid included.

    Args:
        count: adds up over a pool.
        pool: the pool.
        filters: all filters.

    Returns:
        The same filters, ready to score.

    Raises:
        FilterError: a filter can learn nothing from what it has counted; names it.
    """
    taught = dict(filters)
    while learning := {name: judge for name, judge in taught.items() if judge.learns}:
        lessons: Lessons = count("Learn filters", pool.parts(), CountLessons(pool.source, learning))
        for name, judge in learning.items():
            try:
                taught[name] = judge.with_learned(judge.fit(lessons.counted[name]))
            except ValueError as error:
                raise FilterError(f"filter {name} of kind {judge.kind}: {error}") from error
    return taught
