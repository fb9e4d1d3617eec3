"""What all label models share: votes and patterns, settings, a trip through JSON."""

import doctest
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from chaffinch.filters import label_models
from chaffinch.filters.label_models import All, DawidSkene, Majority, Metal, Nothing, WeightedMajority
from chaffinch.filters.label_models.votes import count_patterns, distinct_patterns, merge_patterns

VOTES = nps.arrays(
    np.int8, st.tuples(st.integers(0, 20), st.integers(1, 5)), elements=st.integers(-1, 1)
)  # (n samples, m sources)
MODELS = [
    All(),
    Nothing(),
    Majority(),
    Majority(class_prior=0.3),
    DawidSkene(class_prior=0.4),
    DawidSkene(),
    DawidSkene(form="one_coin"),
    DawidSkene(abstain="symbol"),
    DawidSkene(abstain="symbol", form="one_coin"),
    WeightedMajority(),
    WeightedMajority(class_prior=0.3),
    Metal(),
    Metal(class_prior=0.3, voting="informative"),
    Metal(form="one_coin"),
]
each_model = pytest.mark.parametrize(
    "described", [pytest.param(model.state(), id=f"{model.kind}-{number}") for number, model in enumerate(MODELS)]
)


def build(described):
    kinds = {
        "all": All,
        "none": Nothing,
        "majority": Majority,
        "metal": Metal,
        "dawid_skene": DawidSkene,
        "weighted_majority": WeightedMajority,
    }
    return kinds[described["kind"]](**{name: value for name, value in described.items() if name != "kind"})


def some_votes(seed=0, n=200, m=5):
    rng = np.random.default_rng(seed)
    truth = rng.choice([-1, 1], n)
    votes = np.where(rng.random((n, m)) < 0.75, truth[:, None], -truth[:, None])
    return (votes * (rng.random((n, m)) < 0.7)).astype(np.int8)


@given(VOTES)
def test_patterns_are_the_distinct_rows_in_order(votes):
    patterns, inverse, counts = distinct_patterns(votes)
    expected, expected_counts = np.unique(votes, axis=0, return_counts=True) if len(votes) else (votes, [])
    np.testing.assert_array_equal(patterns, expected)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_array_equal(patterns[inverse], votes)


def test_more_sources_than_fit_into_an_integer_are_counted_too():
    votes = np.random.default_rng(0).integers(-1, 2, (5, 60)).astype(np.int8)
    patterns, counts = count_patterns(np.vstack([votes, votes[:2]]))
    np.testing.assert_array_equal(patterns, np.unique(votes, axis=0))
    assert counts.sum() == 7


def test_no_sources_and_no_samples():
    patterns, counts = count_patterns(np.zeros((4, 0), np.int8))
    assert patterns.shape == (1, 0)
    assert counts.tolist() == [4]
    patterns, counts = count_patterns(np.zeros((0, 3), np.int8))
    assert patterns.shape == (0, 3)
    assert counts.shape == (0,)


@pytest.mark.parametrize("votes", [[[0.5]], [[np.nan]], [[300]], [1, 0], [[[1]]]])
def test_what_is_no_vote_is_refused(votes):
    with pytest.raises(ValueError, match="votes must be"):
        count_patterns(np.array(votes))


def test_merging_adds_up_and_drops_what_never_occurs():
    patterns, counts = merge_patterns(np.array([[1, 0], [0, 1], [1, 0], [-1, -1]]), np.array([2, 3, 4, 0]))
    assert patterns.tolist() == [[0, 1], [1, 0]]
    assert counts.tolist() == [3, 6]


@pytest.mark.parametrize("counts", [[1], [1, -1], [1, 0.5]])
def test_counts_that_count_nothing_are_refused(counts):
    with pytest.raises(ValueError, match="counts"):
        merge_patterns(np.array([[1], [0]]), np.array(counts))


@each_model
def test_fitting_returns_the_model_with_a_number_per_source(described):
    model = build(described)
    votes = some_votes()
    assert model.fit(votes) is model
    probability = model.predict_proba(votes)
    assert probability.shape == (len(votes),)
    assert probability.dtype == np.float64
    assert ((probability >= 0) & (probability <= 1)).all()
    assert model.weight_.shape == model.accuracy_.shape == (5,)
    assert (model.weight_ >= 0).all()
    assert np.isfinite(model.weight_).all()


@each_model
def test_a_trip_through_json_changes_no_bit(described):
    votes = some_votes()
    votes[:, 2] = 0  # a source without an accuracy
    model = build(described).fit(votes)
    text = json.dumps(model.state(), allow_nan=False)
    restored = type(model).restore(json.loads(text))
    unseen = np.random.default_rng(1).integers(-1, 2, (50, 5))
    np.testing.assert_array_equal(restored.predict_proba(unseen), model.predict_proba(unseen))
    np.testing.assert_array_equal(restored.accuracy_, model.accuracy_)
    np.testing.assert_array_equal(restored.weight_, model.weight_)
    assert math.isnan(restored.accuracy_[2])
    assert restored == model
    assert json.dumps(restored.state()) == text


@each_model
def test_models_without_sources_or_samples_survive_json_too(described):
    for shape in [(3, 0), (0, 2), (0, 0)]:
        model = build(described).fit(np.zeros(shape, np.int8))
        restored = type(model).restore(json.loads(json.dumps(model.state())))
        np.testing.assert_array_equal(
            restored.predict_proba(np.zeros((2, shape[1]))), model.predict_proba(np.zeros((2, shape[1])))
        )


@each_model
@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_neither_the_order_of_rows_nor_their_neighbours_change_a_bit(described, seed):
    votes = some_votes()
    order = np.random.default_rng(seed).permutation(len(votes))
    straight, shuffled = build(described).fit(votes), build(described).fit(votes[order])
    np.testing.assert_array_equal(shuffled.weight_, straight.weight_)
    probability = straight.predict_proba(votes)
    np.testing.assert_array_equal(shuffled.predict_proba(votes[order]), probability[order])
    np.testing.assert_array_equal(straight.predict_proba(votes[seed % 200 :][:1]), probability[seed % 200 :][:1])


@each_model
def test_patterns_counted_in_parts_give_the_same_fit(described):
    votes = some_votes()
    whole = build(described).fit(votes)
    parts = [count_patterns(votes[:90]), count_patterns(votes[90:])]
    patterns, counts = (np.concatenate(values) for values in zip(*parts, strict=True))
    split = build(described).fit_patterns(patterns[::-1], counts[::-1])
    assert split.state() == whole.state()


@each_model
def test_votes_that_do_not_fit_are_refused(described):
    model = build(described)
    with pytest.raises(ValueError, match="not been fitted"):
        model.predict_proba(some_votes())
    model.fit(some_votes())
    with pytest.raises(ValueError, match="have 4 sources, but the model was fitted on 5"):
        model.predict_proba(some_votes(m=4))
    with pytest.raises(ValueError, match=r"a vote is 2, but with classes=2.*recode the votes"):
        model.fit(np.array([[2, 1]]))
    with pytest.raises(ValueError, match="a vote is -2"):
        model.fit([[1]]).predict_proba([[-2]])


@pytest.mark.parametrize("kind", [All, Nothing, Majority, DawidSkene])
@pytest.mark.parametrize("prior", [0, 1, 1.5, float("nan")])
def test_certainty_is_no_prior(kind, prior):
    with pytest.raises(ValueError, match=r"strictly between 0 and 1.*such as 0\.99"):
        kind(class_prior=prior)


@pytest.mark.parametrize("kind", [Majority, DawidSkene])
def test_a_prior_over_classes_has_to_fit_them(kind):
    kind(classes=3, class_prior=(0.2, 0.3, 0.5))
    with pytest.raises(ValueError, match=r"sum to 1\.1"):
        kind(classes=3, class_prior=(0.3, 0.3, 0.5))
    with pytest.raises(ValueError, match="2 shares for 3 classes"):
        kind(classes=3, class_prior=(0.5, 0.5))
    with pytest.raises(ValueError, match="one number, but there are 3 classes"):
        kind(classes=3, class_prior=0.5)
    with pytest.raises(ValueError, match="from 2 to 127"):
        kind(classes=1)


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(label_models)
    assert result.attempted >= 3
    assert result.failed == 0
