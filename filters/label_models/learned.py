"""What label models share that learn sources from their votes: copies are one source, and echoes count for less."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np

from chaffinch.filters.label_models.echoes import copied_from, excess_correlation
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.opinions import opinion_weights, worth_discounting
from chaffinch.filters.label_models.votes import merge_patterns, vote_classes


@dataclass(kw_only=True)
class LearnedLabelModel(LabelModel, ABC):
    """Base of label models that learn from votes: an opinion counts once, however many sources voice it.

    Before a fit, sources with equal votes are merged, so that a copy changes no posterior, not in the last bit. What
    is left is put into an order of its own, in which neither copies nor the order of the columns play a part. The
    model's own `_fit` and `_predict` see opinions only, one column each. On votes that the fit has not seen copies may
    part ways: the opinion is then that of the copies that vote, and where these contradict each other it abstains.

    Sources that are no copies, but agree beyond what the class explains, are found by `excess_correlation`; the model
    then counts each source by its `shares`, as its own documentation says.

    Attributes:
        correlated: discount: as above. ignore: all sources are taken to err independently, copies too.
        excess_correlation_: (m, m) how far two sources are one opinion, in [0, 1]; 1 for copies, and on the diagonal.
        discounted_: whether echoes count for less. They do not where so few opinions would be left on a sample that no
            other could speak for it: then those that agree are taken to be right, as always, and no more is known.
        copy_of_: (m,) the first source with the same votes; a source's own position where there is none before it.
        order_: (o opinions,) positions of the sources that stand for the opinions, in the order that the fit takes.
        by_source: names of the learned arrays that have a row per source; `_fit` sets a row per opinion.
    """

    correlated: Literal["discount", "ignore"] = "discount"

    by_source: ClassVar[tuple[str, ...]] = ("accuracy_",)

    excess_correlation_: np.ndarray = field(init=False, repr=False, compare=False)
    discounted_: bool = field(init=False, repr=False, compare=False)
    copy_of_: np.ndarray = field(init=False, repr=False, compare=False)
    order_: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        if self.correlated not in ("discount", "ignore"):
            raise ValueError(f"correlated is {self.correlated!r}: take 'discount' or 'ignore'")

    @abstractmethod
    def _fit(self, patterns: np.ndarray, counts: np.ndarray) -> None:
        """Learns from opinions: sets `accuracy_` and `weight_`, and all that `_predict` needs.

        `excess_correlation_`, `shares` and `order_` are ready. `_predict` may read what is in `by_source`, and
        learned numbers that belong to no source; not `weight_`, of which copies get equal parts.

        Args:
            patterns: (p patterns, o opinions) int8 distinct rows of checked votes in lexicographic order.
            counts: (p,) int64 how many samples show each, above 0.
        """

    @abstractmethod
    def _predict(self, patterns: np.ndarray) -> np.ndarray:
        """The posterior of votes; a row's numbers may not depend on the other rows, not even in the last bit.

        Args:
            patterns: (p patterns, o opinions) int8 checked votes.

        Returns:
            (p,) float64 P(keep); with `classes=k`, (p, k).
        """

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Fits the model to counted vote patterns.

        Args:
            patterns: (p patterns, m sources) rows of votes, in any order; a row may come more than once.
            counts: (p,) how many samples show each pattern.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, counts no counts, or nothing can be learned from them.
        """
        patterns, counts = merge_patterns(patterns, counts)
        vote_classes(patterns, self._classes)
        discount = self.correlated == "discount"
        self.copy_of_ = copied_from(patterns) if discount else np.arange(patterns.shape[1])
        opinions, opinion_of = np.unique(self.copy_of_, return_inverse=True)
        order = own_order(patterns[:, opinions], counts)
        self.order_ = opinions[order]
        place = np.argsort(order)[opinion_of.reshape(-1)]  # (m,) of each source among the opinions

        merged, merged_counts = patterns, counts
        if not np.array_equal(self.order_, np.arange(patterns.shape[1])):
            merged, merged_counts = merge_patterns(patterns[:, self.order_], counts)
        alone = excess = np.eye(len(self.order_))
        if discount:
            excess = excess_correlation(merged, merged_counts, self._classes)
        self.discounted_ = worth_discounting(excess, merged, merged_counts)
        self.excess_correlation_ = excess if self.discounted_ else alone
        self._fit(merged, merged_counts)
        self.excess_correlation_ = excess[np.ix_(place, place)]
        for name in self.by_source:
            setattr(self, name, getattr(self, name)[place])
        self.weight_ = (self.weight_ / np.bincount(place, minlength=len(order)))[place]
        return self

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """The posterior of vote patterns, also of such as the fit has not seen.

        Args:
            patterns: (p patterns, m sources) votes.

        Returns:
            (p,) float64 P(keep); with `classes=k`, (p, k). A row of abstains has the class prior.

        Raises:
            ValueError: votes are no votes.
        """
        vote_classes(patterns, self._classes)
        m = len(self.copy_of_)
        order = self.order_.astype(np.intp)
        opinions = copy.copy(self)
        excess = self.excess_correlation_ if self.discounted_ else np.eye(m)
        opinions.excess_correlation_ = excess.reshape(m, m)[np.ix_(order, order)]
        for name in self.by_source:
            setattr(opinions, name, getattr(self, name)[order])
        return opinions._predict(self._opinions(np.asarray(patterns), order))

    def shares(self, voting: np.ndarray) -> np.ndarray | None:
        """How much each opinion counts beside the others that vote; inside `_fit` and `_predict`.

        Args:
            voting: (p patterns, o opinions) bool, where each votes.

        Returns:
            (p, o) float64 in (0, 1], 0 where it abstains; None where nothing is correlated, so that all count in full.
        """
        if np.count_nonzero(self.excess_correlation_) == len(self.excess_correlation_):
            return None
        return opinion_weights(self.excess_correlation_, voting)

    @property
    def _classes(self) -> int:
        """k; models of two classes need no setting for it."""
        return int(getattr(self, "classes", 2))

    def _opinions(self, patterns: np.ndarray, order: np.ndarray) -> np.ndarray:
        """(p, o) the votes of opinions, in the order that the fit takes."""
        votes = patterns[:, order].astype(np.int8)
        for column, source in zip(votes.T, order, strict=True):
            copies = np.flatnonzero(self.copy_of_ == source)
            if len(copies) > 1:
                same = patterns[:, copies]
                highest = np.where(same != 0, same, -128).max(axis=1)
                lowest = np.where(same != 0, same, 127).min(axis=1)
                column[:] = np.where(highest == lowest, highest, 0)
        return np.ascontiguousarray(votes)


def own_order(patterns: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """An order of sources that depends on what they vote, and not on where they stand.

    Each source is named by a sum, over samples, of a number made from its vote and from how many sources vote what;
    those that only ever cast one vote are not counted there. Sources of the same name (as good as always because they
    may be exchanged) stay in the order that they have.

    Args:
        patterns: (p patterns, m sources) int8 distinct rows of votes.
        counts: (p,) int64 how many samples show each.

    Returns:
        (m,) positions.
    """
    votes = patterns.astype(np.uint64)
    lowest = np.where(patterns != 0, patterns, 127).min(axis=0, initial=127)
    highest = np.where(patterns != 0, patterns, -128).max(axis=0, initial=-128)
    row = np.where((patterns != 0) & (lowest < highest), _scramble(votes), 0).sum(axis=1, dtype=np.uint64)
    names = [
        (_scramble(row + _scramble(column)) * counts.astype(np.uint64))[column != 0].sum(dtype=np.uint64)
        for column in votes.T
    ]
    return np.argsort(np.array(names, dtype=np.uint64), kind="stable")


def _scramble(values: np.ndarray) -> np.ndarray:
    """Spreads whole numbers over all 64 bits; the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return scrambled
