"""Sources whose error rates complete the matrix of how they agree: MeTaL, fitted to its minimum."""

from dataclasses import dataclass, field, replace

import numpy as np

from chaffinch.filters.label_models.completion import Completion
from chaffinch.filters.label_models.moments import PairCounts, enough_peers
from chaffinch.filters.label_models.pairwise import PairwiseLabelModel, Rates


@dataclass(kw_only=True)
class Metal(PairwiseLabelModel):
    """MeTaL: error rates that complete the matrix of how pairs of sources vote, given the class prior.

    With O[iv, jw] the share of samples on which source i votes v and j votes w, and mu[iv, y] = P(i votes v given class
    y), sources that err independently given the class have O = mu diag(prior) mu^T for i != j, and mu prior is what
    each votes. The fit descends, from sources that are all alike, to the nearest minimum of

        sum over pairs i != j: w[i, j] |O[i, j] - mu[i] diag(prior) mu[j]^T|^2 + sum over i: w[i] |mu[i] prior - o[i]|^2
        + smoothing * sum over i: pull[i] |mu[i] - mu of the common source|^2

    The first two sums are the published objective. The third is what a finite pool needs: pairs of 164 crowd workers
    share 8 samples, and the bare minimum would fit their noise. Its pull is worked out from the sampling noise of O,
    under the belief that accuracies spread evenly between chance and 1, and vanishes as 1 / n. There is no randomness.

    `voting` decides what O is of. missing: where a source votes has nothing to do with the class. Then O[i, j] is of
    the samples on which both vote, w[i, j] their share, and mu is given that the source votes: batches of work, in
    which some workers meet often and others never, do not matter. informative: O is of all samples and w is 1, as
    published; a vote counts with P(vote given class), which also says on which class the source speaks up. It is the
    only way to learn from rules that ever only vote for one class. Abstains count for nothing either way.

    Two classes are determined by pairs, given the prior. More are not: for any rotation that leaves prior and margins
    as they are, the first two sums stay the same. So with more classes sources have one accuracy each unless `form`
    says otherwise; with form="confusion" the nearest minimum is then little more than the start.

    Snorkel's LabelModel has the objective with voting="informative" and smoothing=0, a uniform prior unless given, and
    stops after 100 steps of gradient descent from a random multiple of its start, far from the minimum for many sparse
    sources.

    Pairs that are one opinion (`excess_correlation_`) leave the sum over pairs, unless that leaves a source fewer than
    two, and share their say in the posterior. A source that no other votes beside is taken to be right with probability
    0.9. One that always abstains, or always votes the same with voting="missing", has no influence. One that is worse
    than chance keeps its sign: its votes count against what they say, and its weight is 0. That most are better than
    chance is what the start asserts.

    Attributes:
        correlated: discount: sources that are one opinion share its weight. ignore: all are taken to err independently.
        class_prior: P(keep), fixed; with `classes=k` k shares. None: two steps of expectation maximisation (a fit, then
            the mean of its posteriors) from the share of samples on which each class has the majority. Pairs do not
            determine it, and that share lies between the truth and equal shares; a step goes towards the truth, a
            small one where sources are few or weak, and many would follow all that no model explains. With informative
            voting, the majority's share. Give it if you can.
        classes: k, at least 2. Two classes are voted -1 (drop) and +1 (keep), more are voted 1..k.
        form: confusion: every source has its own probability of every vote for every class. one_coin: it has one
            number: its accuracy whatever the class, or with voting="informative" the share of its votes that are no
            blind guesses. None: confusion for two classes, one_coin for more.
        voting: missing or informative, see above. None: informative if more than half of the votes are cast by sources
            that ever vote for one class only.
        smoothing: how much of the third sum, and how many pseudo-votes per source and class; 0 or more. With 0 nothing
            but the published objective is fitted, and a thousandth of a pseudo-vote keeps the posterior off 0 and 1.
        class_prior_: P(keep), given or estimated; with `classes=k`, (k,) shares.
        confusion_: (m sources, k classes, k votes) P(vote given class); sums to 1 over votes with voting="missing", to
            P(votes given class) with voting="informative".
        accuracy_: (m,) expected share of a source's votes that are right, in [0, 1]; NaN where it always abstains.
        weight_: (m,) log odds (nats) of the accuracy averaged over classes, against guessing; at least 0.
        objective_: all three sums; lower is better, 0 is an exact fit.
        converged_: whether the descent arrived.

    Source: A. Ratner et al. (2019), Training Complex Models with Multi-Task Weak Supervision, arXiv 1810.02840.
    """

    objective_: float = field(init=False, repr=False, compare=False)
    converged_: bool = field(init=False, repr=False, compare=False)

    def _fit(self, patterns: np.ndarray, counts: np.ndarray) -> None:
        """Descends, unless there is nothing to learn."""
        self.objective_, self.converged_ = 0.0, True
        super()._fit(patterns, counts)

    def _rates(self, pairs: PairCounts, learned: np.ndarray, *, informative: bool) -> Rates:
        """The minimum; sets the objective."""
        k, n = self.classes, pairs.samples
        known = np.ones(int(learned.sum()), dtype=bool)
        chosen = np.flatnonzero(learned)
        votes = pairs.votes[chosen]
        source, vote = np.nonzero(votes)
        cells = pairs.cells[chosen][:, :, chosen][source, vote][:, source, vote]
        together = pairs.together[np.ix_(chosen, chosen)]
        cast = votes.sum(axis=1)
        weight = np.ones(together.shape) if informative else together / n
        linked = self.excess_correlation_[np.ix_(chosen, chosen)] > 0
        usable = ((together > 0) | informative) & ~np.eye(len(chosen), dtype=bool)
        weight = np.where(enough_peers(usable, linked), weight, 0.0)
        rows = n if informative else np.maximum(together, 1)[np.ix_(source, source)]
        shares = votes[source, vote] / (n if informative else cast[source])
        completion = Completion(
            target=cells / rows,
            weight=weight[np.ix_(source, source)],
            shares=shares,
            margin=np.ones(len(source)) if informative else cast[source] / n,
            source=source,
            vote=vote,
            coverage=cast[source] / n if informative else np.ones(len(source)),
            informative=informative,
            prior=np.full(k, 1 / k),
            samples=n,
        )

        def solve(prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            there = replace(completion, prior=prior)
            mu = np.zeros((len(chosen), k, k))
            if not self._has_one_coin:
                mu[source, vote], self.objective_, self.converged_ = there.solve(self.smoothing)
                return mu, known
            skill, self.objective_, self.converged_ = there.solve_skill(self.smoothing)
            if informative:
                mu[source, vote] = there.at_skill(skill)[0] / np.sqrt(prior)
                return mu, known
            right = (1 / k + skill * (1 - 1 / k))[:, None, None]
            return np.where(np.eye(k, dtype=bool), right, (1 - right) / (k - 1)), known

        return solve
