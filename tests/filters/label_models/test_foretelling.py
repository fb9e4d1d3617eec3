"""What models have to foretell when votes alone choose among them."""

import numpy as np

from chaffinch.filters.label_models.auto import Auto
from chaffinch.filters.label_models.evidence import Votes
from chaffinch.filters.label_models.foretelling import Foretelling
from chaffinch.filters.label_models.majority import Majority
from chaffinch.filters.label_models.votes import count_patterns


def rules(seed, samples=3000, prior=0.45):
    """Eight rules that ever vote for one class only, on it more often than on the other, as labelling functions do."""
    rng = np.random.default_rng(seed)
    good = rng.random(samples) < prior
    on, off = np.array([0.5, 0.4, 0.3, 0.25] * 2), np.array([0.1, 0.05, 0.1, 0.05] * 2)
    for_keep = np.arange(8) % 2 == 0
    fires = rng.random((samples, 8)) < np.where(good[:, None] == for_keep, on, off)
    return (fires * np.where(for_keep, 1, -1)).astype(np.int8), good


def test_of_rules_with_a_class_each_it_is_whether_they_fire():
    """What they vote is known beforehand: a model that calls every sample good would foretell it best."""
    for seed in range(3):
        votes, good = rules(seed)
        model = Auto().fit(votes)
        right = ((model.predict_proba(votes) > 0.5) == good).mean()
        assert right > 0.78, model.reasons_
        assert 0.3 < model.class_prior_ < 0.6


def test_abstains_are_foretold_only_where_most_votes_are_of_such_rules():
    votes, good = rules(0)
    assert Foretelling.of(Votes(*count_patterns(votes)), 2).symbols == 3
    wrong = np.random.default_rng(1).random((len(good), 3)) < 0.2
    two_sided = np.where(good[:, None] ^ wrong, 1, -1)
    assert Foretelling.of(Votes(*count_patterns(np.hstack([votes, two_sided]))), 2).symbols == 2


def test_the_loss_is_that_of_a_plain_loop():
    votes, _ = rules(1, samples=60)
    patterns, counts = count_patterns(votes)
    found = Foretelling.of(Votes(patterns, counts), 2).losses(Majority().fit(votes), Majority)
    losses, parts = (np.concatenate(values) for values in zip(*found.groups, strict=True))
    start, expected = 0, []
    while start < len(losses):
        rest = counts - parts[start : start + len(counts)]
        keep = Majority().fit(votes).predict_proba(patterns)
        mass = np.stack([(1 - keep) * rest, keep * rest])
        prior = (mass.sum(axis=1) + 0.5) / (mass.sum() + 1)
        for row in patterns:
            chance = prior.copy()
            for source, vote in enumerate(row):
                for number in range(2):
                    shown = mass[number, patterns[:, source] == vote].sum() + 1 / 3
                    chance[number] *= shown / (mass[number].sum() + 1)
            expected.append(-np.log(chance.sum()))
        start += len(counts)
    np.testing.assert_allclose(losses, expected)
