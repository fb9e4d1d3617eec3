"""From scores at t steps to keep or drop at each: rules fitted to counts of the pool, never to its raw scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.binarising.bins import Bins
from chaffinch.filters.binarising.dip import dip_of, has_two_groups
from chaffinch.filters.binarising.mixture import fit_mixture
from chaffinch.filters.binarising.rules import SIGN, Kind, Rule, Search, above
from chaffinch.filters.binarising.two_means import TwoMeansSearch
from chaffinch.filters.ranges import Search as RankSearch
from chaffinch.filters.ranges import Share
from chaffinch.filters.statistics import Histogram


@dataclass(frozen=True)
class ShareSearch:
    """The search for the value at a rank.

    Attributes:
        share: the range that is to be found.
        search: the bin and the rank inside it; None where the range holds nothing.
    """

    share: Share
    search: RankSearch | None

    @property
    def digits(self) -> list[int]:
        """The high half of the one bin."""
        return [] if self.search is None else [self.search.digit]

    def finish(self, low: Mapping[int, Histogram]) -> Rule:
        """The rule, from the bin's low halves."""
        return Rule("share", None if self.search is None else self.search.finish(low[self.search.digit]))


@dataclass(frozen=True)
class Binariser:
    """How a step's scores become votes.

    Attributes:
        kind: sign: drops s < 0. share: keeps the highest, an exact share of the pool, equals on one side, as the range
            `top P%`. softmax: keeps s > tau logmeanexp(s / tau), the paper's w > 1 / B with the pool in place of a
            batch. two_means: the one cut that leaves the least squared distances to the means of both sides. mixture:
            two Gaussians, cut where between their means both are equally likely.
        share: of the pool, in (0, 1]; for `share`.
        temperature: tau, above 0, in the score's unit; for `softmax`. Within a bin exp(s / tau) is taken by mean and
            variance alone: good to a thousandth of tau while |s| < 80 tau.
        test_groups: whether two_means and mixture first test that there are two groups, and leave the step to the sign
            where there are not: they would split a single group near its middle.

    Infinite scores vote by their side, and count for `share` alone.
    """

    kind: Kind = "sign"
    share: float | None = None
    temperature: float = 1.0
    test_groups: bool = True

    def check(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: what is wrong, and what to do about it.
        """
        if self.kind == "share" and self.share is None:
            raise ValueError("binariser: share needs share:, which part of the pool to keep at each step, such as 0.6")
        if self.kind != "share" and self.share is not None:
            raise ValueError(
                f"share: {self.share:g} is for binariser: share, not for {self.kind}: leave one of them out"
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share: {self.share:g} is no part of the pool: give a number above 0, up to 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature:g} must be above 0 and finite")

    def search(self, digits: np.ndarray, sums: np.ndarray) -> Rule | Search:
        """Fits a step's rule as far as its bins allow.

        Args:
            digits: (b,) high halves, as `read_high` returns them.
            sums: (b, 3) what was counted of each.

        Returns:
            The rule, or the search that needs a few bins counted value by value.
        """
        if self.kind == "sign":
            return SIGN
        if self.kind == "share":
            histogram = Histogram()
            histogram.counts[digits] = sums[:, 0]
            if not histogram.total:
                return Rule("sign", 0.0, note="no scores")
            share = Share("top", 100 * (self.share or 0.0))
            return _unless_done(ShareSearch(share, RankSearch.start(share, histogram)))
        bins = Bins.of(digits, sums)
        if not len(bins):
            return Rule("sign", 0.0, note="no scores")
        if self.kind == "softmax":
            return Rule("softmax", above(_log_mean_exp(bins, self.temperature)))
        dip = dip_of(bins)
        if self.test_groups and not has_two_groups(dip, int(bins.counts.sum())):
            return Rule("sign", 0.0, dip, "one group")
        return _unless_done(TwoMeansSearch.start(bins, dip)) if self.kind == "two_means" else _mix(bins, dip)


def wanted_bins(rules: Sequence[Rule | Search]) -> list[tuple[int, int]]:
    """Step and high half of the bins that searches need counted value by value."""
    return [(step, digit) for step, rule in enumerate(rules) if not isinstance(rule, Rule) for digit in rule.digits]


def finish_rules(rules: Sequence[Rule | Search], low: Mapping[tuple[int, int], Histogram]) -> list[Rule]:
    """Ends the searches.

    Args:
        rules: (t,) what `search` returned.
        low: step and high half -> low halves of the bins of `wanted_bins`.
    """
    return [
        rule if isinstance(rule, Rule) else rule.finish({digit: low[step, digit] for digit in rule.digits})
        for step, rule in enumerate(rules)
    ]


def _unless_done(search: Search) -> Rule | Search:
    """The search, or its rule where no bin has to be looked into."""
    return search if search.digits else search.finish({})


def _log_mean_exp(bins: Bins, temperature: float) -> float:
    """Tau log mean exp(s / tau): the score that has exactly the mean weight."""
    spread = np.sqrt(bins.variances) / temperature
    # Two points per bin, a standard deviation below and above its mean: the log of their mean exp.
    terms = bins.means / temperature + spread + np.log1p(np.exp(-2 * spread)) - math.log(2)
    top = float(terms.max())
    mean = float((bins.counts * np.exp(terms - top)).sum() / bins.counts.sum())
    return temperature * (top + math.log(mean))


def _mix(bins: Bins, dip: float) -> Rule:
    if len(bins) < 2:
        return Rule("sign", 0.0, dip, "all scores lie within one bin")
    crossing = fit_mixture(bins).crossing()
    if crossing is None:
        return Rule("sign", 0.0, dip, "one component outweighs the other")
    return Rule("mixture", float(np.float32(crossing)), dip)
