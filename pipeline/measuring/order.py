"""The order of scoring: a scorer comes after those it reads, and after those whose columns may veto its samples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chaffinch.filters.filter import Filter
from chaffinch.scoring.scorer import Scorer


@dataclass(frozen=True)
class Order:
    """What has to be measured before what.

    Attributes:
        reads: scorer -> the scorers whose columns it reads.
        gates: scorer that skips vetoed samples -> the required filters that it waits for.
        levels: scorers that can be measured at once, level after level.
    """

    reads: Mapping[str, tuple[str, ...]]
    gates: Mapping[str, tuple[str, ...]]
    levels: Sequence[Sequence[str]]

    @classmethod
    def of(cls, scorers: Mapping[str, Scorer], filters: Mapping[str, Filter]) -> "Order":
        """Finds the order.

        Scorers that skip vetoed samples are taken in their own order: each waits for the required filters over columns
        of scorers that skip nothing or that came before it. Filters that take samples down are not waited for: nothing
        that is measured depends on them.

        Args:
            scorers: name -> scorer, in the order of the config.
            filters: name -> filter.

        Returns:
            The order.

        Raises:
            ValueError: scorers read each other in a circle; names them.
        """
        reads = {name: _owners(one.reads, scorers) for name, one in scorers.items()}
        after: dict[str, set[str]] = {name: set(names) for name, names in reads.items()}
        waiting = [name for name, one in scorers.items() if one.where == "required"]
        gates: dict[str, tuple[str, ...]] = {}
        for position, name in enumerate(waiting):
            later = set(waiting[position:])
            chosen = []
            for title, judge in filters.items():
                owners = _owners(judge.reads, scorers)
                if judge.require and not judge.takes_down and not later & _before(owners, after):
                    chosen.append(title)
                    after[name] |= set(owners)
            gates[name] = tuple(chosen)
        return cls(reads, gates, _levels(after))


def _owners(columns: Iterable[str], scorers: Mapping[str, Scorer]) -> tuple[str, ...]:
    """The scorers that measure these columns; none for columns made elsewhere."""
    return tuple(dict.fromkeys(owner for column in columns if (owner := column.partition(".")[0]) in scorers))


def _before(names: Iterable[str], after: Mapping[str, set[str]]) -> set[str]:
    """These scorers and all that have to be measured before them."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += after[name]
    return found


def _levels(after: Mapping[str, set[str]]) -> list[list[str]]:
    levels: list[list[str]] = []
    done: set[str] = set()
    while len(done) < len(after):
        level = [name for name, names in after.items() if name not in done and names <= done]
        if not level:
            circle = ", ".join(name for name in after if name not in done)
            raise ValueError(f"these scorers wait for each other: {circle}; let one of them read something else")
        levels.append(level)
        done |= set(level)
    return levels
