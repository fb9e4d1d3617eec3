"""A judgement made from votes in memory, and pools whose truth is known."""

import numpy as np
import pytest

from chaffinch.filters.cut import Cut
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.votes import count_patterns
from chaffinch.filters.ranges import FittedRanges


def _judge(votes, aspects, models, names=None, uncovered=False):
    names = names or [f"f{index}" for index in range(votes.shape[1])]
    required = [aspect is None for aspect in aspects]
    patterns, counts = count_patterns(votes)
    ranges = [FittedRanges((0.0, 1.0), None)] * len(names)
    fitted = Fitted(names, required, ranges, {}, Ensemble({}), uncovered, Cut(-1.0), [False] * len(names))
    judged = ~fitted.ruled_out(patterns)
    evidence = Evidence(Votes(patterns[judged], counts[judged]))
    ensemble = Ensemble.fit(aspects, models, evidence)
    return Fitted(names, required, ranges, {}, ensemble, uncovered, Cut(-1.0), [False] * len(names)), evidence


def _vote(generator, truth, accuracy, coverage=1.0):
    right = np.where(generator.random(len(truth)) < accuracy, truth, ~truth) * 2 - 1
    return np.where(generator.random(len(truth)) < coverage, right, 0).astype(np.int8)


@pytest.fixture(scope="session")
def judge():
    """(votes, aspects, models, names) -> a fitted judgement and its evidence."""
    return _judge


@pytest.fixture(scope="session")
def vote():
    """(generator, truth, accuracy, coverage) -> (n,) votes of a source that errs by itself."""
    return _vote


@pytest.fixture(scope="session")
def and_pool():
    """Keep is an AND: four filters look at the match, one finds duplicates, which to all others look clean."""
    generator = np.random.default_rng(5)
    n = 6000
    duplicate = generator.random(n) < 0.12
    match = (generator.random(n) < 0.5) | duplicate
    columns = [_vote(generator, match, accuracy) for accuracy in (0.88, 0.82, 0.78, 0.72)]
    columns.append(_vote(generator, ~duplicate, 0.976))
    return np.stack(columns, 1), ["clip", "l14", "boxes", "words", "duplicates"]
