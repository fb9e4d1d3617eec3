"""How sure it is how often each filter is right: a bootstrap over counted vote patterns."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from chaffinch.filters.diagnosis.refits import Refits
from chaffinch.filters.label_models.evidence import Votes
from chaffinch.filters.label_models.label_model import LabelModel

DRAWS = 32
SEED = 0

FEWEST_SAMPLES = 500
"""Below so many samples a draw tells nothing of a pool that has more."""

_WIDTH = 1.959964  # standard deviations on each side: 95%
_FEWEST_DRAWS = 10
_ROUNDING = 1e-9
_GRANTED = "taken for granted: the votes do not tell"


@dataclass(frozen=True)
class Accuracy:
    """How often the filters of an aspect are right, as its label model estimates it.

    Attributes:
        interval: (m, 2) 95% interval of the accuracy, in [0, 1]; NaN where there is none.
        edge: (m,) accuracy less that of a filter which casts as many keep and drop votes at random, in [-0.5, 0.5];
            NaN where the label model does not judge by votes.
        edge_interval: (m, 2) its 95% interval; NaN where there is none.
        prior_interval: 95% interval of an estimated class prior; None where there is none.
        prior_note: why there is none, or what it rests on.
        notes: (m,) why a filter has no interval, or what the interval rests on.
    """

    interval: np.ndarray
    edge: np.ndarray
    edge_interval: np.ndarray
    prior_interval: tuple[float, float] | None
    prior_note: str
    notes: tuple[str, ...]

    @classmethod
    def without_intervals(cls, model: LabelModel, edge: np.ndarray, reason: str) -> "Accuracy":
        """(m,) edges, and why there is nothing to be said of how sure they are."""
        unknown = np.full((len(edge), 2), np.nan)
        interval, note = _own_prior_interval(model) or (None, reason)
        return cls(unknown, edge, unknown, interval, note, (reason,) * len(edge))

    @property
    def worse_than_chance(self) -> np.ndarray:
        """(m,) bool: the whole interval of the edge lies below 0."""
        # Of a source that casts one kind of vote the edge is 0 by definition, give or take how sums are rounded.
        worse: np.ndarray = np.nan_to_num(self.edge_interval[:, 1], nan=1.0) < -_ROUNDING
        return worse


def measure_edges(model: LabelModel, votes: Votes) -> np.ndarray:
    """How much more often each source is right than it would be by chance, as the model sees it.

    Args:
        model: fitted, of two classes.
        votes: of its sources.

    Returns:
        (m,) expected share of right votes less a g + (1 - a) (1 - g), with a the source's share of keep votes and g the
        mean P(keep) where it votes; NaN for a source without votes.
    """
    probability, counts = model.predict_patterns(votes.patterns), votes.counts.astype(np.float64)
    keeps, drops = (votes.patterns == 1).astype(np.float64), (votes.patterns == -1).astype(np.float64)
    good, bad = counts * probability, counts * (1 - probability)
    cast = counts @ keeps + counts @ drops
    rows = np.where(cast > 0, cast, np.nan)
    right = (good @ keeps + bad @ drops) / rows
    share, kept = (counts @ keeps) / rows, (good @ keeps + good @ drops) / rows
    edge: np.ndarray = right - share * kept - (1 - share) * (1 - kept)
    return edge


def measure_accuracy(refits: Refits, draws: int = DRAWS, seed: int = SEED) -> Accuracy:
    """Finds intervals by drawing samples with replacement and fitting again, where the label model learns from votes.

    The interval is the estimate and 1.96 standard deviations of the draws, in log odds, to both sides: with a few dozen
    draws that is steadier than their quantiles. Where so many fits on all samples are too much work, each draw has
    fewer, and its spread is brought to the size of the pool by the root of their ratio. What a model says of its own
    interval is taken over. Two filters have none: a fit to them is steady, and yet rests on more than their votes.

    Args:
        refits: the aspect's label model and evidence.
        draws: how many refits.
        seed: of the draws.

    Returns:
        Accuracies, edges over chance and the class prior, and how sure they are.

    Source: B. Efron, R. Tibshirani (1993), An Introduction to the Bootstrap; with fewer samples than there are:
        D. Politis, J. Romano, M. Wolf (1999), Subsampling.
    """
    model, votes = refits.model, refits.evidence.votes
    m, total = votes.patterns.shape[1], int(votes.counts.sum())
    unknown = np.full(m, np.nan)
    if model.is_soft:
        return Accuracy.without_intervals(model, unknown, f"{model.kind} judges by scores, not by votes")
    if not total or np.isnan(model.accuracy_).all():
        reason = f"{model.kind} is a rule that does not estimate it" if total else "there is no vote"
        return Accuracy.without_intervals(model, unknown, reason)
    edge = measure_edges(model, votes)
    if hasattr(model, "accuracy_interval_"):
        interval = np.asarray(model.accuracy_interval_, np.float64).reshape(m, 2)
        apart = interval - model.accuracy_[:, None]
        note = f"by the bootstrap of {model.kind} itself"
        prior, prior_note = _own_prior_interval(model) or (None, note)
        return Accuracy(interval, edge, edge[:, None] + apart, prior, prior_note, (note,) * m)
    if model.needs_peers and 1 < len({column.tobytes() for column in votes.patterns.T if column.any()}) < 3:
        reason = "two filters do not determine it: each could be what the other echoes"
        return Accuracy.without_intervals(model, edge, reason)
    samples = refits.most_samples(draws, FEWEST_SAMPLES)
    if samples is None:
        return Accuracy.without_intervals(model, edge, "refitting would take too long")
    found = [
        (fitted.accuracy_, measure_edges(fitted, drawn), getattr(fitted, "class_prior_", np.nan))
        for fitted, drawn in refits.resampled(draws, seed, samples)
    ]
    if len(found) < _FEWEST_DRAWS:
        reason = "it could not be fitted to resampled votes"
        return Accuracy.without_intervals(model, edge, reason)
    scale = np.sqrt(samples / total)
    accuracies, edges, priors = (np.array(part, np.float64) for part in zip(*found, strict=True))
    cast = (votes.counts[:, None] * (votes.patterns != 0)).sum(axis=0)
    interval = _spread_log_odds(model.accuracy_, accuracies, scale, cast)
    width = _WIDTH * scale * _deviation(edges)
    note = f"{len(found)} fits to resampled votes"
    if samples < total:
        note += f", of {samples} samples each"
    own, prior, prior_note = _own_prior_interval(model), None, _GRANTED
    if own is not None:
        prior, prior_note = own
    else:
        estimate = np.array([getattr(model, "class_prior_", np.nan)])
        low, high = _spread_log_odds(estimate, priors[:, None], scale, np.array([total]))[0]
        if not np.isnan(low):
            prior, prior_note = (float(low), float(high)), note
    notes = tuple(_GRANTED if np.isnan(bounds).any() else note for bounds in interval)
    return Accuracy(interval, edge, edge[:, None] + width[:, None] * np.array([-1, 1]), prior, prior_note, notes)


def _own_prior_interval(model: LabelModel) -> tuple[tuple[float, float] | None, str] | None:
    """The interval of its class prior that a label model itself gives, and why it gives none; None: it says nothing."""
    if model.class_prior is not None:
        return None, "given"
    if model.prior_unknown is not None:
        return None, model.prior_unknown
    interval = getattr(model, "class_prior_interval_", None)
    if interval is None:
        return None
    low, high = np.asarray(interval, np.float64).ravel()
    return (float(low), float(high)), f"by the bootstrap of {model.kind} itself"


def _spread_log_odds(estimate: np.ndarray, draws: np.ndarray, scale: float, cast: np.ndarray) -> np.ndarray:
    """(m, 2) 95% intervals of (m,) shares from (b draws, m); NaN where draws never differ, since nothing was learned.

    Shares nearer to 0 or 1 than a quarter of a vote count as so near.
    """
    edge = 1 / (4 * np.maximum(cast, 1) + 1)
    centre = logit(np.clip(estimate, edge, 1 - edge))
    width = _WIDTH * scale * _deviation(logit(np.clip(draws, edge, 1 - edge)))
    bounds: np.ndarray = expit(centre[:, None] + width[:, None] * np.array([-1, 1]))
    return np.where(width[:, None] > 0, bounds, np.nan)


def _deviation(draws: np.ndarray) -> np.ndarray:
    """(m,) standard deviation of (b, m) draws; 0 up to rounding is 0, and NaN where hardly any draw tells."""
    known = (~np.isnan(draws)).sum(axis=0) >= _FEWEST_DRAWS
    filled = np.where(known, draws, 0.0)
    deviation = np.nanstd(filled, axis=0, ddof=1)
    return np.where(known, np.where(deviation > 1e-9, deviation, 0.0), np.nan)
