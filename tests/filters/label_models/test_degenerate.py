"""Input with little or nothing in it: a documented answer or a refusal that says what to do, from every label model."""

import itertools
import re

import numpy as np
import pytest

TRUTH = np.repeat([1, -1], [60, 40])
RIGHT = np.random.default_rng(0).random((100, 4)) < [0.9, 0.85, 0.8, 0.75]
VOTES = np.where(RIGHT, TRUTH[:, None], -TRUTH[:, None])
ALONE = VOTES[:, :3].copy()
ALONE[:50, 2] = 0
ALONE[50:, :2] = 0
INPUTS = {
    "one source": VOTES[:, :1],
    "two sources": VOTES[:, :2],
    "two sources that never agree": VOTES[:, :1] * [1, -1],
    "no source": VOTES[:, :0],
    "no sample": VOTES[:0],
    "no sample of one source": VOTES[:0, :1],
    "one sample": VOTES[:1],
    "two samples": VOTES[[0, 60]],
    "all abstain": VOTES * 0,
    "all abstain but once": VOTES * (np.arange(100) == 7)[:, None],
    "all agree": np.repeat(TRUTH[:, None], 4, axis=1),
    "all keep": np.abs(VOTES),
    "all drop": -np.abs(VOTES),
    "one constant source": np.where([False, False, False, True], 1, VOTES),
    "constant sources": np.where([False, True, True, True], [0, 1, -1, 1], VOTES),
    "a source that never overlaps": ALONE,
    "no source overlaps": VOTES * (np.arange(100)[:, None] % 4 == np.arange(4)),
    "contradictory votes": VOTES * [1, -1, 1, -1],
    "all combinations once": np.array(list(itertools.product([-1, 0, 1], repeat=4))),
    "sources of one vote each": np.where(VOTES == [1, 1, -1, -1], VOTES, 0),
}
SEVERAL = {name for name, votes in INPUTS.items() if votes.shape[1] != 1}
FEW = {"one source", "two sources", "two sources that never agree", "no source"}
LITTLE = {"no sample", "no sample of one source", "one sample", "two samples", "all abstain", "all abstain but once"}
ONE_OPINION = {"all agree", "all keep", "all drop"}
APART = {"a source that never overlaps", "no source overlaps"}
REFUSED = {
    "alone": SEVERAL,
    "clean_vs_pool": {"no sample", "no sample of one source"},
    "flying_squid": FEW | LITTLE | ONE_OPINION | APART,
    "gaussian": FEW | LITTLE,
}
REMEDY = re.compile(r"add sources|choose a label model|give \d+ or more|take |loosen the required filters")
GOOD = np.where(np.random.default_rng(1).random((30, 4)) < 0.85, 1, -1)
GOOD_SCORES = np.random.default_rng(2).normal(1, 1, (30, 4))


def scores_of(votes):
    """Scores that are above 0 where a vote is keep, and NaN where it abstains."""
    size = np.random.default_rng(3).uniform(0.1, 2, votes.shape)
    return np.where(votes == 0, np.nan, votes * size)


def check(variant, pool, reference, prior):
    """Fits; whatever comes of it is a posterior that can be relied on, or a refusal with a remedy."""
    with np.errstate(all="raise", under="ignore"):
        try:
            model = variant.fit(pool, reference, prior)
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = None
        if refusal is not None:
            assert REMEDY.search(refusal), refusal
            return None
        m = pool.shape[1]
        values = [-1.5, np.nan, 0.0, 1.5] if variant.is_soft else [-1, 0, 1]
        rows = np.array(list(itertools.product(values, repeat=m))).reshape(len(values) ** m, m)
        rows = np.concatenate([rows, pool])
        posterior = model.predict_proba(rows)
    assert posterior.dtype == np.float64
    assert ((posterior >= 0) & (posterior <= 1)).all()  # NaN neither
    silent = np.isnan(rows).all(axis=1) if variant.is_soft else (rows == 0).all(axis=1)
    expected = getattr(model, "class_prior_", variant.prior_of_abstains if prior is None else prior)
    expected = variant.prior_of_abstains if model.is_rule else expected
    if expected is None:  # an automatic choice of the majority
        expected = 0.5
    if not variant.hears_silence:
        np.testing.assert_allclose(posterior[silent], expected, rtol=1e-12)
    if prior is not None and not model.is_rule:
        assert expected == prior
    assert 0 < expected <= 1
    assert model.weight_.shape == model.accuracy_.shape == (m,)
    assert (model.weight_ >= 0).all()
    assert np.isfinite(model.weight_).all()
    known = model.accuracy_[~np.isnan(model.accuracy_)]
    assert ((known >= 0) & (known <= 1)).all()
    np.testing.assert_array_equal(variant.restored(model).predict_proba(rows), posterior)
    return model


@pytest.mark.parametrize("prior", [None, 0.001, 0.999])
def test_there_is_an_answer_or_a_remedy(any_variant, prior):
    refused = set()
    for name, votes in INPUTS.items():
        pool = scores_of(votes) if any_variant.is_soft else votes
        reference = (GOOD_SCORES if any_variant.is_soft else GOOD)[:, : votes.shape[1]]
        if check(any_variant, pool, reference, prior) is None:
            refused.add(name)
    assert refused == REFUSED.get(any_variant.kind().kind, set())  # none comes by accident


SCORES = scores_of(VOTES)
DEGENERATE_SCORES = {
    "constant": np.ones((100, 4)),
    "one constant": np.where([True, False, False, False], 3.0, SCORES),
    "no score": np.full((100, 4), np.nan),
    "one source without scores": np.where([True, False, False, False], np.nan, SCORES),
    "infinite": np.where(SCORES > 1, np.inf, np.where(SCORES < -1, -np.inf, SCORES)),
    "two values": np.sign(SCORES),
    "huge": SCORES * 1e300,
    "all the same": np.repeat(SCORES[:, :1], 4, axis=1),
    "one against the others": SCORES * [1, 1, 1, -1],
    "opposites": np.repeat(SCORES[:, :1], 4, axis=1) * [1, -1, 1, -1],
    "one score": np.where(np.arange(400).reshape(100, 4) == 5, 1.0, np.nan),
}


@pytest.mark.parametrize("prior", [None, 0.001, 0.999])
@pytest.mark.parametrize("name", DEGENERATE_SCORES)
def test_scores_without_much_in_them(soft_variant, name, prior):
    for reference in (GOOD_SCORES, DEGENERATE_SCORES[name][:20]):
        check(soft_variant, DEGENERATE_SCORES[name], reference, prior)


def test_nan_is_no_vote(voting_variant):
    with pytest.raises(ValueError, match="give 0 where a source cannot judge"):
        voting_variant.fit(np.array([[np.nan]]), np.ones((30, 1)))
