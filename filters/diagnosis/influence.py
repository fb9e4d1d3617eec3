"""What would change in the kept set if a filter were not there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.diagnosis.keeping import KeepRule, thin
from chaffinch.filters.diagnosis.refits import Refits
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.label_model import LabelModel

MOST_SAMPLES = 10_000
"""Of so many samples at most it is looked at whether their decision changes: a share is then sure to 0.01."""

FEWEST_SAMPLES = 2_000
"""A fit to fewer says less of what a filter does than leaving the fit as it is and the filter silent."""


@dataclass(frozen=True)
class Change:
    """What leaving a filter out does.

    Attributes:
        share: of the usable samples whose decision changes, in [0, 1]; None where that cannot be said.
        note: why it cannot be said, or what it rests on.
    """

    share: float | None
    note: str


@dataclass(frozen=True)
class _Pool:
    """Samples on which decisions are compared.

    Attributes:
        patterns: (p patterns, m filters) int8.
        counts: (p,) how many samples show each.
    """

    patterns: np.ndarray
    counts: np.ndarray


def leave_out(
    fitted: Fitted, refits: Mapping[str, Refits], rule: KeepRule, patterns: np.ndarray, counts: np.ndarray
) -> list[Change]:
    """Leaves one filter out at a time, fits its aspect without it, and compares which samples are kept.

    Args:
        fitted: the judgement.
        refits: aspect -> what refits of its label model start from.
        rule: how much is kept, with and without the filter.
        patterns: (p patterns, m filters) int8 votes of all usable samples, vetoed ones too.
        counts: (p,) how many samples show each.

    Returns:
        (m,) what each filter changes. Where fitting again is too much work, the filter abstains instead. Among equally
        probable patterns at the cut the same share of each is taken, with and without the filter, so that the change is
        the least that goes with the probabilities. A filter that vetoes is left out without fitting anything again.
    """
    total = int(counts.sum())
    if not total or fitted.ensemble.is_soft:
        reason = "samples are ordered by scores, not by votes alone" if total else "there is no sample"
        return [Change(None, reason)] * len(fitted.names)
    pool = _Pool(*thin(patterns, counts, MOST_SAMPLES))
    of_samples = "" if int(pool.counts.sum()) == total else f"on {int(pool.counts.sum())} samples"
    factors = {name: _factor(model, columns, pool) for name, (columns, model) in fitted.ensemble.aspects.items()}
    changes: list[Change | None] = [None] * len(fitted.names)
    before = _decide(fitted, rule, pool, factors)
    for index, required in enumerate(fitted.required):
        if required:
            share = _differ(before, _decide(fitted, rule, pool, factors, index), pool)
            late = index in set(fitted.withdrawing)
            changes[index] = Change(None, "it acts once all is decided") if late else Change(share, of_samples)
    for name, (columns, model) in fitted.ensemble.aspects.items():
        samples = refits[name].most_samples(len(columns) + 1, FEWEST_SAMPLES)
        if samples is None:
            for index in columns:
                muted = pool.patterns.copy()
                muted[:, index] = 0
                factor = _factor(model, columns, _Pool(muted, pool.counts))
                after = _decide(fitted, rule, pool, factors | {name: factor}, index)
                notes = ", ".join(part for part in (of_samples, "silenced, since refitting takes long") if part)
                changes[index] = Change(_differ(before, after, pool), notes)
            continue
        thinned, number = refits[name].thinned(samples)
        whole = samples == int(refits[name].evidence.votes.counts.sum())
        base = before
        if not whole:
            model = refits[name].of_votes(thinned, number)  # like is compared with like: both are fits to few samples
            base = _decide(fitted, rule, pool, factors | {name: _factor(model, columns, pool)})
        notes = ", ".join(part for part in (of_samples, "" if whole else f"fitted to {samples} samples") if part)
        for place, index in enumerate(columns):
            rest = [other for other in range(len(columns)) if other != place]
            try:
                factor = np.ones(len(pool.counts))
                if rest:
                    other = refits[name].of_votes(thinned, number, rest)
                    factor = _factor(other, [columns[one] for one in rest], pool)
            except ValueError as error:
                changes[index] = Change(None, f"{model.kind} cannot be fitted without it: {error}")
                continue
            after = _decide(fitted, rule, pool, factors | {name: factor}, index)
            changes[index] = Change(_differ(base, after, pool), notes)
    return [Change(None, "no label model weighs it") if change is None else change for change in changes]


def _factor(model: LabelModel, columns: Sequence[int], pool: _Pool) -> np.ndarray:
    """(p,) P(the aspect holds)."""
    return model.predict_patterns(np.ascontiguousarray(pool.patterns[:, list(columns)]))


def _decide(
    fitted: Fitted, rule: KeepRule, pool: _Pool, factors: Mapping[str, np.ndarray], without: int | None = None
) -> np.ndarray:
    """(p,) the share of each pattern's samples that is kept, with one filter silent."""
    product = np.ones(len(pool.counts))
    for factor in factors.values():
        product = product * factor
    probability = product.astype(np.float32)
    if fitted.ensemble.calibration is not None:
        probability = fitted.ensemble.calibration.apply(probability)
    votes = pool.patterns
    if without is not None:
        votes = votes.copy()
        votes[:, without] = 0
    return rule.kept(probability, pool.counts, fitted.candidates(votes, probability, fitted.covered(votes)))


def _differ(one: np.ndarray, other: np.ndarray, pool: _Pool) -> float:
    """The share of samples that are kept by one and not by the other."""
    return float((pool.counts * np.abs(one - other)).sum() / pool.counts.sum())
