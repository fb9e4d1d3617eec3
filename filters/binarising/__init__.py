"""Binarisers: from scores at t steps, such as mimic scores at checkpoints, to keep or drop at each of them.

>>> import numpy as np
>>> from chaffinch.filters.binarising import Binariser, binarise, fit_binariser
>>> rng = np.random.default_rng(0)
>>> clean = rng.random(2000) < 0.7
>>> scores = rng.normal(np.where(clean, 5, 1)[:, None], 1, (2000, 3))
>>> binarise(scores)[:2]  # by the sign
array([[1, 1, 1],
       [1, 1, 1]], dtype=int8)
>>> rules = fit_binariser(scores, Binariser("two_means"))
>>> [(rule.kind, round(rule.threshold)) for rule in rules]
[('two_means', 3), ('two_means', 3), ('two_means', 3)]
>>> votes = binarise(scores, Binariser("mixture"))
>>> found, true = votes[:, 0] < 0, ~clean
>>> float(round(2 * (found & true).sum() / (found.sum() + true.sum()), 2))  # F1 of the mislabels found
0.96
"""

import numpy as np

from chaffinch.filters.binarising.binariser import Binariser, finish_rules, wanted_bins
from chaffinch.filters.binarising.bins import count_high, count_low, read_high, read_low
from chaffinch.filters.binarising.rules import SIGN, Rule, vote

__all__ = ["SIGN", "Binariser", "Rule", "binarise", "fit_binariser", "vote"]

_SIGN = Binariser()


def fit_binariser(scores: np.ndarray, binariser: Binariser = _SIGN) -> list[Rule]:
    """Fits a rule to each step of a pool in memory; `vote` applies them to any scores.

    Args:
        scores: (n samples, t steps), taken as float32; NaN where a sample was not seen.
        binariser: how scores become votes.

    Returns:
        (t,) rules, the same as those of a filter over the same pool.

    Raises:
        ValueError: scores are not two-dimensional, or a setting is wrong.
    """
    binariser.check()
    scores = _as_scores(scores)
    steps = scores.shape[1]
    rules = [binariser.search(*counted) for counted in read_high(count_high(scores), steps)]
    wanted = wanted_bins(rules)
    return finish_rules(rules, read_low(count_low(scores, wanted), wanted))


def binarise(scores: np.ndarray, binariser: Binariser = _SIGN) -> np.ndarray:
    """Fits a rule to each step of a pool in memory and lets it vote there.

    Args:
        scores: (n samples, t steps), taken as float32; NaN where a sample was not seen.
        binariser: how scores become votes.

    Returns:
        (n, t) int8: -1 drop, 0 abstain, +1 keep.

    Raises:
        ValueError: scores are not two-dimensional, or a setting is wrong.
    """
    return vote(_as_scores(scores), fit_binariser(scores, binariser))


def _as_scores(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float32)
    if scores.ndim != 2:
        raise ValueError(f"scores must be (n samples, t steps), not of shape {scores.shape}; for one step give (n, 1)")
    return scores
