"""What models that learn from votes share: an opinion counts once, however many sources voice it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.filters.label_models import DawidSkene, WeightedMajority

MODELS = [
    pytest.param(kind, described, id=f"{kind.__name__}-{number}")
    for number, (kind, described) in enumerate(
        [
            (DawidSkene, {}),
            (DawidSkene, {"class_prior": 0.3, "form": "one_coin"}),
            (DawidSkene, {"abstain": "symbol"}),
            (DawidSkene, {"abstain": "symbol", "form": "one_coin"}),
            (WeightedMajority, {}),
            (WeightedMajority, {"class_prior": 0.3}),
        ]
    )
]
each_model = pytest.mark.parametrize(("kind", "described"), MODELS)


def planted(n, copies=0, flipped=0.05, seed=0, coverage=1.0, accuracies=(0.8, 0.8, 0.8)):
    """Votes of honest sources and of near copies of one source that is right on 70%; and the (n,) truth."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([-1, 1], n)
    columns = [np.where(rng.random(n) < accuracy, truth, -truth) for accuracy in accuracies]
    source = np.where(rng.random(n) < 0.7, truth, -truth)
    columns += [np.where(rng.random(n) < flipped, -source, source) for _ in range(copies)]
    votes = np.stack(columns, axis=1)
    return (votes * (rng.random(votes.shape) < coverage)).astype(np.int8), truth


def right(model, votes, truth):
    return ((model.fit(votes).predict_proba(votes) > 0.5) == (truth > 0)).mean()


@each_model
@given(seed=st.integers(0, 10_000), places=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=3))
@settings(max_examples=15, deadline=None)
def test_a_copy_changes_no_bit_wherever_it_stands(kind, described, seed, places):
    votes, _ = planted(300, 2, 0.1, seed, 0.8)
    wider, origin = votes, list(range(5))
    for copied, place in places:
        wider = np.insert(wider, place, votes[:, copied], axis=1)
        origin.insert(place, copied)
    unseen = np.random.default_rng(1).integers(-1, 2, (60, 5))
    one, more = kind(**described).fit(votes), kind(**described).fit(wider)
    np.testing.assert_array_equal(more.predict_proba(wider), one.predict_proba(votes))
    np.testing.assert_array_equal(more.predict_proba(unseen[:, origin]), one.predict_proba(unseen))
    restored = kind.restore(json.loads(json.dumps(more.state(), allow_nan=False)))
    np.testing.assert_array_equal(restored.predict_proba(unseen[:, origin]), one.predict_proba(unseen))
    np.testing.assert_array_equal(more.accuracy_, one.accuracy_[origin])
    shared = [more.weight_[np.array(origin) == source].sum() for source in range(5)]
    np.testing.assert_allclose(shared, one.weight_, rtol=1e-12)


@each_model
def test_copies_over_classes_change_no_bit_either(kind, described):
    if "class_prior" in described:
        described = described | {"class_prior": (0.5, 0.3, 0.2)}
    rng = np.random.default_rng(3)
    votes = rng.integers(0, 4, (200, 4))
    one = kind(classes=3, **described).fit(votes)
    wider = votes[:, [1, 0, 1, 2, 3]]
    np.testing.assert_array_equal(
        kind(classes=3, **described).fit(wider).predict_proba(wider), one.predict_proba(votes)
    )


@each_model
@given(seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=10, deadline=None)
def test_the_order_of_correlated_sources_does_not_matter(kind, described, seed, data):
    votes, _ = planted(600, 4, 0.08, seed, 0.9)
    order = data.draw(st.permutations(range(7)))
    one, other = kind(**described).fit(votes), kind(**described).fit(votes[:, order])
    np.testing.assert_allclose(other.predict_proba(votes[:, order]), one.predict_proba(votes), atol=1e-9)
    np.testing.assert_allclose(other.weight_, one.weight_[order], atol=1e-9)


@pytest.mark.parametrize("flipped", [0.05, 0.08, 0.1, 0.12])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "model",
    [{"kind": DawidSkene}, {"kind": DawidSkene, "form": "one_coin"}, {"kind": WeightedMajority}],
    ids=["dawid_skene", "one_coin", "weighted_majority"],
)
def test_ten_near_copies_do_not_outvote_three_independent_sources(model, flipped, seed):
    kind, described = model["kind"], {name: value for name, value in model.items() if name != "kind"}
    votes, truth = planted(3000, 10, flipped, seed)
    without = right(kind(**described), votes[:, :3], truth)
    assert right(kind(**described), votes, truth) > without - 0.02
    assert right(kind(correlated="ignore", **described), votes, truth) < without - 0.1
    np.testing.assert_allclose(kind(**described).fit(votes).accuracy_[:3], 0.8, atol=0.06)


@each_model
def test_rows_depend_on_no_other_row_where_sources_are_correlated(kind, described):
    votes, _ = planted(500, 4, 0.08, 0, 0.7)
    model = kind(**described).fit(votes)
    assert (model.excess_correlation_ > 0).sum() > 7
    alone = np.concatenate([model.predict_proba(row[None]) for row in votes[:50]])
    np.testing.assert_array_equal(alone, model.predict_proba(votes)[:50])


def slow_objective(model, votes):
    """The first sum that Dawid-Skene's documentation states, with shares worked out by hand for two tied sources."""
    tied = np.argwhere(np.triu((model.excess_correlation_ > 0) & (model.excess_correlation_ < 1), 1)).tolist()
    assert tied == [[3, 4]]
    h, total = model.excess_correlation_[3, 4], 0.0
    for row in votes.tolist():
        joint = [1 - model.class_prior_, model.class_prior_]
        for source, vote in enumerate(row):
            if vote:
                power = 1 / (1 + h) if source in (3, 4) and row[3] and row[4] else 1
                joint = [p * model.confusion_[source, y, int(vote > 0)] ** power for y, p in enumerate(joint)]
        total += np.log(sum(joint))
    return total


def test_the_composite_likelihood_is_the_one_stated_and_never_falls():
    votes, _ = planted(400, 2, 0.05, 1, 0.9)
    reached = []
    for steps in range(8):
        model = DawidSkene(max_iterations=steps, tolerance=0).fit(votes)
        stated = slow_objective(model, votes)
        assert model.log_likelihood_ == pytest.approx(stated, rel=1e-10)
        prior = [1 - model.class_prior_, model.class_prior_]
        stated += 0.5 * np.log(model.confusion_).sum() + 0.5 * np.log(prior).sum()
        assert model.objective_ == pytest.approx(stated, rel=1e-10)
        reached.append(stated)
    assert (np.diff(reached) >= -1e-9).all()
    assert reached[-1] > reached[0]


@each_model
def test_on_unseen_votes_copies_speak_for_each_other_and_a_contradiction_is_silence(kind, described):
    votes, _ = planted(400, 0, accuracies=(0.9, 0.8, 0.7, 0.75), coverage=0.9)
    model = kind(**described).fit(votes[:, [0, 0, 1, 2, 3]])
    one = kind(**described).fit(votes)
    found = model.predict_proba([[1, 0, 1, -1, 1], [0, 1, 1, -1, 1], [1, -1, 1, -1, 1]])
    expected = one.predict_proba([[1, 1, -1, 1], [1, 1, -1, 1], [0, 1, -1, 1]])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [DawidSkene, WeightedMajority])
def test_copies_are_sources_like_others_where_correlation_is_ignored(kind):
    votes, _ = planted(300)
    model = kind(correlated="ignore").fit(votes[:, [0, 1, 2, 2]])
    assert model.copy_of_.tolist() == [0, 1, 2, 3]
    assert (model.excess_correlation_ == np.eye(4)).all()
    assert model.weight_[2] == pytest.approx(model.weight_[3])
    assert model.weight_[2] > kind().fit(votes[:, [0, 1, 2, 2]]).weight_[2]


def test_another_treatment_is_refused():
    with pytest.raises(ValueError, match="correlated is 'merge': take 'discount' or 'ignore'"):
        DawidSkene(correlated="merge")


def test_echoes_are_not_discounted_where_next_to_nobody_else_speaks():
    """Four sources that err together vote on everything, two poor ones here and there: the four stay in charge."""
    rng = np.random.default_rng(11)
    truth = np.where(rng.random(8000) < 0.4, 1, -1)
    shared = np.where(rng.random(8000) < 0.88, truth, -truth)
    echoes = np.where(rng.random((8000, 4)) < 0.95, shared[:, None], -shared[:, None])
    fault = np.where(rng.random(8000) < 0.6, truth, -truth)  # which the poor ones share
    poor = np.where(rng.random((8000, 2)) < 0.85, fault[:, None], -fault[:, None])
    spoken = np.where(rng.random((8000, 2)) < [0.15, 0.4], poor, 0)
    votes = np.concatenate([echoes, spoken], axis=1)
    model = DawidSkene().fit(votes)
    assert not model.discounted_
    assert np.count_nonzero(model.excess_correlation_) > 6  # found and told all the same
    assert ((model.predict_proba(votes) > 0.5) == (truth > 0)).mean() > 0.85
    everywhere = np.where(rng.random((8000, 3)) < 0.8, truth[:, None], -truth[:, None])
    assert DawidSkene().fit(np.concatenate([echoes, everywhere], axis=1)).discounted_
