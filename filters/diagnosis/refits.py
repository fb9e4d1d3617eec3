"""Fitting a label model again, on other samples or without a source, for no more than a bounded amount of work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chaffinch.filters.diagnosis.keeping import thin
from chaffinch.filters.label_models.alone import Alone
from chaffinch.filters.label_models.auto import Auto
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.votes import merge_patterns

WORK = 2e7
"""Votes that the refits of a whole ensemble may look at, for each of the two purposes; about a second."""

_ASSUMED_STEPS = 50
_STEPS_WITH_INTERVALS = 400  # such a model resamples by itself


@dataclass(frozen=True)
class Refits:
    """What refits of one aspect's label model are made from.

    Attributes:
        model: the fitted label model; it stays as it is.
        evidence: on the filters of the aspect.
        work: votes that all refits together may look at.
    """

    model: LabelModel
    evidence: Evidence
    work: float = WORK

    def most_samples(self, refits: int, fewest: int) -> int | None:
        """Of how many samples a refit may be.

        The work of a refit is patterns x filters x steps, and there are no more patterns than samples. The steps are
        those of the fit; where a model does not tell, 50, and 0 for a rule.

        Args:
            refits: how many are wanted.
            fewest: a fit to fewer samples tells nothing of a pool that has more.

        Returns:
            All there are, or fewer where that would be too much work; None where it leaves fewer than `fewest`.
        """
        votes = self.evidence.votes
        samples, m = int(votes.counts.sum()), votes.patterns.shape[1]
        steps = _STEPS_WITH_INTERVALS if hasattr(self.model, "accuracy_interval_") else _ASSUMED_STEPS
        steps = 0 if np.isnan(self.model.accuracy_).all() else getattr(self.model, "iterations_", steps)
        affordable = int(self.work // (max(refits, 1) * max(m, 1) * (steps + 2)))
        if len(votes.patterns) <= affordable:
            return samples
        if affordable < min(fewest, samples):
            return None
        return min(affordable, samples)

    def of_votes(self, patterns: np.ndarray, counts: np.ndarray, columns: Sequence[int] | None = None) -> LabelModel:
        """Fits to other votes, with the same reference, scores and labels.

        Args:
            patterns: (p patterns, m sources) int8.
            counts: (p,) how many samples show each.
            columns: the sources to learn from; None: all. One that is left by itself is calibrated, not fitted.

        Returns:
            A new fitted label model.

        Raises:
            ValueError: it cannot be fitted.
        """
        evidence = replace(self.evidence, votes=Votes(patterns, counts))
        model = replace(self.model)
        if columns is not None:
            evidence = evidence.of(columns)
            if len(columns) == 1 and model.needs_peers:
                model = Alone(class_prior=model.class_prior)
        return model.learn(evidence)

    def thinned(self, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The votes of so many samples, evenly spaced in the order of patterns."""
        return thin(self.evidence.votes.patterns, self.evidence.votes.counts, samples)

    def resampled(self, draws: int, seed: int, samples: int) -> Iterator[tuple[LabelModel, Votes]]:
        """Fits to samples drawn with replacement, again and again; draws that cannot be fitted are left out.

        Args:
            draws: how often.
            seed: of the draws.
            samples: how many samples each draw has.

        Yields:
            The label model and the votes that it was fitted to.
        """
        votes = self.evidence.votes
        generator = np.random.default_rng(seed)
        shares = votes.counts / votes.counts.sum()
        for _ in range(draws):
            counts = generator.multinomial(samples, shares)
            shown = counts > 0
            drawn = Votes(votes.patterns[shown], counts[shown])
            try:
                yield self.of_votes(drawn.patterns, drawn.counts), drawn
            except ValueError:
                continue


def gather_refits(model: LabelModel, evidence: Evidence, columns: Sequence[int], work: float) -> Refits:
    """What refits of an aspect start from.

    Args:
        model: the aspect's fitted label model; of `auto`, the one that it has chosen is fitted again.
        evidence: on all filters.
        columns: those of the aspect.
        work: votes that all refits together may look at.
    """
    own = evidence.of(columns)
    if isinstance(model, Auto):  # trying all models again and again would take minutes: what is chosen stays
        model = model.chosen
    return Refits(model, replace(own, votes=Votes(*merge_patterns(own.votes.patterns, own.votes.counts))), work)
