"""How well label models foretell: labels, which samples are like known-good ones, or votes they have not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.label_models.echoes import copied_from, excess_correlation
from chaffinch.filters.label_models.evidence import Evidence, Labelled, Votes
from chaffinch.filters.label_models.expectation import expect, maximise
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.opinions import opinion_weights, worth_discounting
from chaffinch.filters.label_models.votes import count_cast, mostly_one_sided, vote_classes

_FOLDS = 3
_SMOOTHING = 1.0
_LEAST = 1e-3  # a posterior that is surer than that counts as if it were not, lest one sample decide


@dataclass(frozen=True)
class Losses:
    """Losses in nats, as means over one or several groups of samples that are added up.

    Attributes:
        groups: for each group, (g,) losses and (g,) how many samples have each.
    """

    groups: Sequence[tuple[np.ndarray, np.ndarray]]

    @property
    def mean(self) -> float:
        """The sum over groups of their means, of empty ones 0; lower is better."""
        return sum(float(np.average(losses, weights=weights)) for losses, weights in self.groups if weights.sum())

    def clearly_less(self, other: "Losses") -> bool:
        """Whether the mean is less than that of another's on the same samples by more than the difference's error."""
        gain, variance = 0.0, 0.0
        for (losses, weights), (others, _) in zip(self.groups, other.groups, strict=True):
            if not weights.sum():
                continue
            difference = others - losses
            mean = float(np.average(difference, weights=weights))
            gain += mean
            variance += float(np.average((difference - mean) ** 2, weights=weights) / weights.sum())
        return bool(gain > variance**0.5)


Measure = Callable[[LabelModel, Callable[[], LabelModel]], Losses]
"""From a fitted model, and what makes it unfitted, to its losses; ValueError where it cannot be fitted to a part."""


def label_losses(model: LabelModel, labelled: Labelled) -> Losses:
    """-log P(label) of every labelled sample.

    Args:
        model: fitted, to anything but labels.
        labelled: samples with a label, one at least.
    """
    keep, drop = _log_losses(model.predict_proba(labelled.votes))
    return Losses([(np.where(labelled.keep, keep, drop), np.ones(len(keep)))])


@dataclass(frozen=True)
class ReferenceRisk:
    """The loss over labels of a pool that has none, from known-good samples.

    Attributes:
        votes: the pool's, distinct patterns in lexicographic order.
        reference: the known-good samples'.
        prior: P(keep) in the pool.
    """

    votes: Votes
    reference: Votes
    prior: float

    def losses(self, model: LabelModel, make: Callable[[], LabelModel]) -> Losses:
        """The two means of the risk; each third of the reference is judged by a model fitted to the rest.

        Args:
            model: not looked at.
            make: makes the model, not fitted.

        Raises:
            ValueError: the model cannot be fitted to two thirds of the reference.
        """
        pool, good = [], []
        for part in _parts(self.reference.counts):
            rest = self.reference.counts - part
            trusted = Votes(self.reference.patterns[rest > 0], rest[rest > 0])
            fitted = make().learn(Evidence(self.votes, trusted))
            pool.append(_log_losses(fitted.predict_proba(self.votes.patterns))[1])
            keep, drop = _log_losses(fitted.predict_proba(self.reference.patterns))
            good.append((self.prior * (keep - drop), part))
        return Losses(
            [
                (np.mean(pool, axis=0), self.votes.counts),
                (np.concatenate([one for one, _ in good]), np.concatenate([part for _, part in good])),
            ]
        )


@dataclass(frozen=True)
class Foretelling:
    """How well a reading of the classes foretells votes.

    Attributes:
        votes: distinct patterns in lexicographic order, copies of a source included.
        voted: (o opinions, p) class voted for, k for abstains.
        shares: (o, p) how much each counts.
        classes: k.
        symbols: what a source can show: k, or one more if its abstains are to be foretold too. They are where more
            than half of the votes are cast by sources that ever vote for one class only: what such a source votes is
            known beforehand, and all that can be foretold is whether it does.
    """

    votes: Votes
    voted: np.ndarray
    shares: np.ndarray
    classes: int
    symbols: int

    @classmethod
    def of(cls, votes: Votes, classes: int) -> "Foretelling":
        """Looks for sources that are one opinion, once for all models."""
        opinions = np.unique(copied_from(votes.patterns))
        chosen = votes.patterns[:, opinions]
        voted = vote_classes(chosen, classes)
        excess = excess_correlation(chosen, votes.counts, classes)
        if not worth_discounting(excess, chosen, votes.counts):
            excess = np.eye(len(opinions))
        symbols = classes + mostly_one_sided(count_cast(voted, votes.counts, classes))
        shares = opinion_weights(excess, (voted != classes) | (symbols > classes))
        return cls(votes, np.ascontiguousarray(voted.T), shares.T, classes, symbols)

    def losses(self, model: LabelModel, make: Callable[[], LabelModel]) -> Losses:
        """-log P(votes) of every third under the reading of a model fitted to the others.

        Args:
            model: not looked at.
            make: makes the model, not fitted.

        Raises:
            ValueError: the model cannot be fitted to two thirds of the samples.
        """
        found, parts = [], _parts(self.votes.counts)
        for part in parts:
            rest = self.votes.counts - part
            fitted = make().learn(Evidence(Votes(self.votes.patterns[rest > 0], rest[rest > 0])))
            proba = fitted.predict_proba(self.votes.patterns)
            mass = (np.stack([1 - proba, proba]) if self.classes == 2 else proba.T) * rest
            prior = mass.sum(axis=1) + _SMOOTHING / self.classes
            confusion = maximise(self.voted, mass, self.shares, self.symbols, _SMOOTHING, "confusion")
            found.append(-expect(np.log(prior / prior.sum()), confusion, self.voted, self.shares)[1])
        return Losses([(np.concatenate(found), np.concatenate(parts))])


def _parts(counts: np.ndarray) -> list[np.ndarray]:
    """Cuts samples into three parts, those in the order of their patterns into each in turn: (p,) counts of each."""
    ends = np.cumsum(counts)
    return [np.diff((ends + _FOLDS - 1 - part) // _FOLDS, prepend=0) for part in range(_FOLDS)]


def _log_losses(proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) -log P(keep) and (n,) -log P(drop)."""
    safe = np.clip(proba, _LEAST, 1 - _LEAST)
    return -np.log(safe), -np.log1p(-safe)
