"""Learning from a pool: passes that count it, and what is fitted between them.

    (what filters learn) -> count values and uids -> ends of ranges (those that labels decide come last) -> count votes
        -> label models -> the cut

Every arrow is one pass over the score tables whose counts add up; what is fitted between passes is plain numbers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from chaffinch.filters.cut import Cut
from chaffinch.filters.diagnosis.diagnosis import describe_filters, diagnose
from chaffinch.filters.diagnosis.keeping import KeepRule
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.filter import Filter
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.evidence import Evidence
from chaffinch.filters.patterns import Patterns
from chaffinch.filters.ranges import Search, Share
from chaffinch.filters.statistics import Ranks
from chaffinch.pipeline.deciding.counts import CountFine, CountPool, CountVotes, FineCounts, PoolCounts
from chaffinch.pipeline.deciding.evidence import gather
from chaffinch.pipeline.deciding.find_cut import find_cut
from chaffinch.pipeline.deciding.find_repeats import find_repeats
from chaffinch.pipeline.deciding.judgement import Judgement, Pool
from chaffinch.pipeline.deciding.lessons import Count, teach
from chaffinch.pipeline.deciding.ranges import find_shares, fit_by_labels, fit_ranges
from chaffinch.pipeline.repeats import fits_at_once, table_size


class LabelModelError(Exception):
    """A label model cannot be fitted to the pool; the message names its aspect and the remedy."""


class EmptyPoolError(Exception):
    """The pool has shards, but not one sample."""


@dataclass(frozen=True)
class Measured:
    """What the first two passes found.

    Attributes:
        ranks: filter -> ranks of its scores in the pool.
        ends: filter and "keep" or "drop" -> the inner end of that range, None where it holds nothing.
        repeated: shard -> rows that repeat an earlier sample's uid.
    """

    ranks: Mapping[str, Ranks]
    ends: Mapping[tuple[str, str], float | None]
    repeated: Mapping[str, tuple[int, ...]]


def measure(
    count: Count,
    pool: Pool,
    filters: Mapping[str, Filter],
    shares: Mapping[tuple[str, str], Share],
    ranked: set[str],
    repeated: Mapping[str, tuple[int, ...]] | None = None,
) -> Measured:
    """Finds the exact ends of shares, the ranks of scores, and repeated uids, in two passes over a pool.

    Repeated uids of very many shards take further passes, so that no memory grows with the pool.

    Args:
        count: adds up over the pool.
        pool: the pool whose values decide.
        filters: all filters.
        shares: filter and "keep" or "drop" -> the share that is to be found.
        ranked: filters whose ranks are wanted.
        repeated: shard -> rows that repeat an earlier sample's uid, where they are known.

    Returns:
        What was found.
    """
    wanted = {name for name, _ in shares} | ranked
    counted = {name: judge for name, judge in filters.items() if name in wanted}
    at_once = fits_at_once(len(pool.shards))
    size = table_size(len(pool.shards)) if repeated is None and at_once else 0
    first: PoolCounts = count("Count values", pool.parts(), CountPool(pool.source, counted, size))
    if not first.read:
        raise EmptyPoolError(f"no sample was found in {len(pool.shards)} shards, such as {pool.shards[0].path}")
    if repeated is None and not at_once:
        repeated = find_repeats(count, pool, first.read)
    high = {name: counts.histogram() for name, counts in first.high.items()}
    searches = {key: Search.start(share, high[key[0]]) for key, share in shares.items()}
    digits = {
        name: sorted({search.digit for (other, _), search in searches.items() if other == name and search})
        for name in counted
        if any(other == name and search for (other, _), search in searches.items())
    }
    suspects = first.seen.suspects()
    ends: dict[tuple[str, str], float | None] = dict.fromkeys(searches)
    if digits or suspects.bits is not None:
        needed = {name: counted[name] for name in digits}
        fine: FineCounts = count("Count finely", pool.parts(), CountFine(pool.source, needed, digits, suspects))
        if repeated is None:
            repeated = fine.claims.repeated([shard.name for shard in pool.shards])
        for key, search in searches.items():
            if search is not None:
                ends[key] = search.finish(fine.low[key[0], search.digit].histogram())
    ranks = {name: Ranks.from_histogram(high[name]) for name in sorted(ranked)}
    return Measured(ranks, ends, repeated or {})


@dataclass(frozen=True)
class Learned:
    """What was learned from a pool.

    Attributes:
        fitted: the judgement as plain numbers.
        repeated: shard -> rows that repeat an earlier sample's uid.
        report: what fitted.json tells beside the judgement: per filter, and how the cut was made.
    """

    fitted: Fitted
    repeated: Mapping[str, tuple[int, ...]]
    report: Mapping[str, Any]


def learn(
    count: Count,
    pool: Pool,
    reference: Pool | None,
    judgement: Judgement,
    frozen: Fitted | None = None,
    repeated: Mapping[str, tuple[int, ...]] | None = None,
) -> Learned:
    """Fits everything that depends on the pool.

    Args:
        count: adds up over a pool.
        pool: the pool.
        reference: known-good samples that ranges may lean on.
        judgement: what the config asks for.
        frozen: numbers learned elsewhere: used unchanged, only votes are counted.
        repeated: shard -> rows of the pool that repeat an earlier sample's uid, where they are known.

    Returns:
        The judgement and what was learned beside it.

    Raises:
        EmptyPoolError: no sample was found at all.
        RangeError: ranges overlap, or labels cannot decide them.
        FilterError: a filter cannot learn from the pool.
        LabelModelError: a label model cannot be fitted.
    """
    filters = teach(count, pool, judgement.filters if frozen is None else frozen.teach(judgement.filters))
    judgement = replace(judgement, filters=filters)
    if frozen is not None:
        repeated = measure(count, pool, filters, {}, set(), repeated).repeated
        fitted = replace(frozen, takes_down=[judge.takes_down for judge in filters.values()])
    else:
        fitted, repeated, by_labels = _fit_filters(count, pool, reference, judgement, repeated)
    parts = pool.parts(repeated)
    votes: Patterns = count("Count votes", parts, CountVotes(pool.source, filters, fitted))
    patterns, counts = votes.arrays()
    if frozen is None:
        evidence = gather(count, pool, parts, reference, judgement, fitted, patterns, counts)
        fitted = replace(fitted, ensemble=_fit_ensemble(judgement, fitted, evidence))
    report: dict[str, Any] = {"filters": describe_filters(fitted, patterns, counts), "usable": int(counts.sum())}
    for index, why in fitted.ensemble.dropped.items():
        report["filters"][fitted.names[index]] |= {"accuracy": None, "weight": 0.0, "dropped_source": asdict(why)}
    if frozen is None:
        for name in fitted.learned:
            report["filters"][name] |= filters[name].report()
        cut, how = find_cut(count, parts, pool.source, judgement, fitted, patterns, counts)
        fitted = replace(fitted, cut=cut)
        report["order"] = how
        report["diagnosis"] = _diagnose(judgement, fitted, evidence, patterns, counts, report["filters"])
        if evidence.labelled is not None:
            report["labels"] = fitted.ensemble.against(evidence.labelled) | {"ranges": by_labels}
    return Learned(fitted, repeated or {}, report)


def _fit_filters(
    count: Count,
    pool: Pool,
    reference: Pool | None,
    judgement: Judgement,
    repeated: Mapping[str, tuple[int, ...]] | None,
) -> tuple[Fitted, Mapping[str, tuple[int, ...]], Mapping[str, Any]]:
    """Everything but label models and cut; the rows that repeat a uid; and what labels said of ranges."""
    filters = judgement.filters
    ranked = {
        name
        for name, judge in filters.items()
        if judgement.is_soft or (judgement.orders and not judge.require)
        if not (judge.require and judge.takes_down)
    }
    found = measure(count, pool, filters, find_shares(filters, of_reference=False), ranked, repeated)
    ends = dict(found.ends)
    shares = find_shares(filters, of_reference=True)
    if reference is not None and shares:
        ends |= measure(count, reference, filters, shares, set(), {}).ends
    by_labels = fit_by_labels(count, pool, pool.parts(found.repeated), filters, judgement.labels)
    fitted = Fitted(
        names=list(filters),
        required=[judge.require for judge in filters.values()],
        ranges=fit_ranges(filters, ends, by_labels.ranges),
        ranks=found.ranks,
        ensemble=Ensemble({}),
        uncovered=judgement.uncovered,
        cut=Cut(-1.0),
        takes_down=[judge.takes_down for judge in filters.values()],
        learned={name: judge.learned for name, judge in filters.items() if judge.learned is not None},
    )
    return fitted, found.repeated, by_labels.report


def _fit_ensemble(judgement: Judgement, fitted: Fitted, evidence: Evidence) -> Ensemble:
    """The label models, and what is blended with them."""
    aspects = [None if judge.require else judge.aspect for judge in judgement.filters.values()]
    scored = [index for index in range(len(fitted.names)) if index not in set(fitted.withdrawing)]
    blend = None if judgement.blend is None else (scored, judgement.blend)
    try:
        return Ensemble.fit(aspects, judgement.models, evidence, blend, judgement.drop_sources)
    except ValueError as error:
        raise LabelModelError(str(error)) from error


def _diagnose(
    judgement: Judgement,
    fitted: Fitted,
    evidence: Evidence,
    patterns: np.ndarray,
    counts: np.ndarray,
    filters: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What the votes tell of the ensemble; what belongs to a filter is added to its description."""
    usable = int(counts.sum())
    share = judgement.wanted(usable) / max(usable, 1) if judgement.orders else None
    added, diagnosis = diagnose(fitted, evidence, patterns, counts, KeepRule(share, judgement.probability or 0.0))
    for name, found in added.items():
        filters[name] |= found
    return diagnosis
