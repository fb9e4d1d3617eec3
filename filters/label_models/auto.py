"""The label model that fits: several are tried, and the one is taken that foretells best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from chaffinch.filters.label_models.anchored import Anchored
from chaffinch.filters.label_models.dawid_skene import DawidSkene
from chaffinch.filters.label_models.echoes import copied_from
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.flying_squid import FlyingSquid
from chaffinch.filters.label_models.foretelling import Foretelling, Losses, Measure, ReferenceRisk, label_losses
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.learned import own_order
from chaffinch.filters.label_models.majority import Majority
from chaffinch.filters.label_models.metal import Metal
from chaffinch.filters.label_models.tables import Table, read_votes
from chaffinch.filters.label_models.votes import count_patterns, merge_patterns, vote_classes
from chaffinch.filters.label_models.weighted_majority import WeightedMajority

FEWEST_LABELS = 20
"""Labels, of both kinds, from which on they choose; with fewer the votes themselves do."""

_SHARED = ("accuracy_", "weight_", "class_prior_", "class_prior_interval_", "excess_correlation_", "log_likelihood_")
_CLASSES: dict[str, type[LabelModel]] = {
    "dawid_skene": DawidSkene,
    "weighted_majority": WeightedMajority,
    "metal": Metal,
    "flying_squid": FlyingSquid,
    "anchored": Anchored,
    "majority": Majority,
}


@dataclass(kw_only=True)
class Auto(LabelModel):
    """Tries label models, and takes the one that foretells best: labels where there are enough, or votes.

    With labels of both kinds, 20 or more, a model's loss is the mean of -log P(label) under its posteriors. With fewer,
    but with a reference, it is what that mean would be over the pool, of which good samples are a share p like the
    reference, found without knowing which these are:

        p * mean over the reference of [-log P(keep) + log P(drop)] + mean over the pool of [-log P(drop)]

    with p the class prior, or else what the anchored model finds; each third of the reference is judged by models
    fitted to the rest. With neither it is what the model's reading of the classes costs on votes that it has not seen:
    the votes are cut into three parts; a model is fitted to two of them, its posteriors there say how often each source
    votes what for each class, and these shares give the log-likelihood of the third part's votes, in which several
    sources that are one opinion count once. Where most votes are cast by sources that ever vote for one class only,
    that is of abstains too: what such a source votes is known beforehand, and not whether it does. Votes alone can tell
    how many kinds of samples there are, not which kind is the good one; all candidates take that from sources being
    right more often than not.

    The candidates are tried in the order of their generality: Dawid and Skene's with a confusion and with one accuracy
    per source, weighted majority, MeTaL, FlyingSquid and majority, with a reference also anchored, first. A later one
    is taken only if its loss is smaller by more than its standard error, since the same data chose it. Those that
    cannot be fitted, for want of sources that overlap or of two classes, are left out.

    Source: M. C. du Plessis, G. Niu and M. Sugiyama (2015), Convex Formulation for Learning from Positive and Unlabeled
        Data, ICML, for the risk from a reference and a pool.

    Attributes:
        class_prior: P(keep), for all candidates; None: each estimates it as it does.
        classes: k, at least 2.
        chosen_: the state of the model that was taken.
        reasons_: a line for each candidate: its loss, or why it was left out.
        accuracy_: (m,) as the model that was taken estimates it; likewise its weight_, and its class_prior_,
            excess_correlation_ and log_likelihood_ if it has any.
    """

    needs_peers: ClassVar[bool] = True
    uses_reference: ClassVar[bool] = True

    classes: int = 2

    chosen_: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    reasons_: list[str] = field(init=False, repr=False, compare=False)

    def fit(self, votes: Table, reference: Table | None = None) -> Self:
        """Chooses by votes in memory.

        Args:
            votes: (n samples, m sources) of the pool, an array or a table.
            reference: (k samples, m sources) of known-good samples, if there are any; of a table the columns that the
                pool's has.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes.
        """
        read, names = read_votes(votes)
        trusted = None if reference is None else Votes(*count_patterns(read_votes(reference, names)[0]))
        self.learn(Evidence(Votes(*count_patterns(read)), trusted))
        return self._named(names)

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Chooses by votes alone.

        Args:
            patterns: (p patterns, m sources) rows of votes, in any order; a row may come more than once.
            counts: (p,) how many samples show each pattern.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, or counts no counts.
        """
        return self.learn(Evidence(Votes(patterns, counts)))

    def learn(self, evidence: Evidence) -> Self:
        """Tries all candidates.

        Args:
            evidence: votes; labels and a reference where there are any.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, or counts no counts.
        """
        patterns, counts = merge_patterns(evidence.votes.patterns, evidence.votes.counts)
        vote_classes(patterns, self.classes)
        evidence = replace(evidence, votes=Votes(patterns, counts))
        by, measure = self._measure(evidence)
        best: tuple[Losses, LabelModel] | None = None
        self.reasons_ = []
        for name, make in self._candidates(evidence).items():
            try:
                model = make().learn(evidence)
                losses = measure(model, make)
            except ValueError as error:
                self.reasons_.append(f"{name}: left out: {error}")
                continue
            self.reasons_.append(f"{name}: {losses.mean:.4f} nats a sample")
            if best is None or losses.clearly_less(best[0]):
                best, chosen = (losses, model), name
        assert best is not None  # majority can always be fitted
        self.reasons_.insert(0, f"{chosen} foretells {by} best, as far as can be told")
        self.chosen_ = best[1].state()
        vars(self).pop("_model", None)  # of an earlier fit
        for name in _SHARED:
            if hasattr(best[1], name):
                setattr(self, name, getattr(best[1], name))
        return self

    def _measure(self, evidence: Evidence) -> tuple[str, Measure]:
        """What candidates have to foretell, and how well a fitted one, and what makes it, do."""
        labelled, evidence = evidence.labelled, _in_own_order(evidence)
        reference = evidence.reference
        enough = labelled is not None and len(labelled.keep) >= FEWEST_LABELS
        if enough and labelled is not None and labelled.keep.any() and not labelled.keep.all():
            return f"{len(labelled.keep)} labels", lambda model, _: label_losses(model, labelled)
        if reference is not None and self.classes == 2:
            prior = self.class_prior
            try:
                found = Anchored(class_prior=prior).learn(evidence)
            except ValueError:  # the candidate says why
                pass
            else:
                risk = ReferenceRisk(evidence.votes, reference, found.class_prior_)
                return f"which samples are like the {reference.counts.sum()} of the reference", risk.losses
        return "votes held out", Foretelling.of(evidence.votes, self.classes).losses

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """The posterior that the chosen model gives.

        Args:
            patterns: (p patterns, m sources) votes.

        Returns:
            (p,) float64 P(keep); with `classes=k`, (p, k).

        Raises:
            ValueError: votes are no votes.
        """
        return self._model.predict_patterns(patterns)

    @property
    def chosen(self) -> LabelModel:
        """The model that was taken."""
        return self._model

    @property
    def prior_unknown(self) -> str | None:
        """As of the model that was taken."""
        return self._model.prior_unknown

    @cached_property
    def _model(self) -> LabelModel:
        return _CLASSES[self.chosen_["kind"]].restore(self.chosen_)

    def _candidates(self, evidence: Evidence) -> dict[str, Callable[[], LabelModel]]:
        """Name -> what makes it, in the order in which they are preferred."""
        prior, classes = self.class_prior, self.classes
        found: dict[str, Callable[[], LabelModel]] = {}
        if evidence.reference is not None and classes == 2:
            found["anchored"] = lambda: Anchored(class_prior=prior)
        found["dawid_skene"] = lambda: DawidSkene(class_prior=prior, classes=classes)
        found["dawid_skene, one_coin"] = lambda: DawidSkene(class_prior=prior, classes=classes, form="one_coin")
        found["weighted_majority"] = lambda: WeightedMajority(class_prior=prior, classes=classes)
        found["metal"] = lambda: Metal(class_prior=prior, classes=classes)
        if classes == 2:
            found["flying_squid"] = lambda: FlyingSquid(class_prior=prior)
        found["majority"] = lambda: Majority(class_prior=prior, classes=classes)
        return found


def _in_own_order(evidence: Evidence) -> Evidence:
    """Each opinion once, and where it stands depends on votes alone: so does the cutting of samples into parts."""
    votes, reference = evidence.votes, evidence.reference
    copies = copied_from(votes.patterns if reference is None else np.concatenate([votes.patterns, reference.patterns]))
    opinions = np.unique(copies)
    chosen = evidence.of(opinions[own_order(votes.patterns[:, opinions], votes.counts)].tolist())
    merged = Votes(*merge_patterns(chosen.votes.patterns, chosen.votes.counts))
    if chosen.reference is None:
        return replace(chosen, votes=merged)
    trusted = Votes(*merge_patterns(chosen.reference.patterns, chosen.reference.counts))
    return replace(chosen, votes=merged, reference=trusted)
