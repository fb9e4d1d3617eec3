import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from chaffinch.filters.label_models import All, Majority, Nothing

VOTES = nps.arrays(np.int8, st.tuples(st.integers(1, 15), st.integers(1, 4)), elements=st.integers(-1, 1))


@given(VOTES)
def test_all_wants_every_source_content(votes):
    expected = [0.0 if -1 in row else 1.0 for row in votes.tolist()]
    assert All().fit(votes).predict_proba(votes).tolist() == expected


@given(VOTES)
def test_none_keeps_everything(votes):
    assert Nothing().fit(votes).predict_proba(votes).tolist() == [1.0] * len(votes)


def test_rules_are_final_and_estimates_are_not():
    assert All.is_rule
    assert Nothing.is_rule
    assert not Majority.is_rule
    assert [All().kind, Nothing().kind, Majority().kind] == ["all", "none", "majority"]


@given(VOTES)
def test_majority_is_the_share_of_keep_votes(votes):
    expected = [row.count(1) / max(1, row.count(1) + row.count(-1)) if any(row) else 0.25 for row in votes.tolist()]
    assert Majority(class_prior=0.25).fit(votes).predict_proba(votes).tolist() == expected


@given(VOTES)
def test_majority_turns_around_with_the_votes(votes):
    model = Majority().fit(votes)
    np.testing.assert_allclose(model.predict_proba(-votes), 1 - model.predict_proba(votes), atol=1e-15)


def test_ties_stay_and_rows_of_abstains_get_the_prior_or_one_half():
    votes = [[1, -1, 0], [0, 0, 0]]
    assert Majority().fit(votes).predict_proba(votes).tolist() == [0.5, 0.5]
    assert Majority(class_prior=0.8).fit(votes).predict_proba(votes).tolist() == [0.5, 0.8]


def test_majority_over_classes():
    votes = [[1, 3, 3], [2, 0, 0], [0, 0, 0]]
    shares = Majority(classes=3).fit(votes).predict_proba(votes)
    np.testing.assert_allclose(shares, [[1 / 3, 0, 2 / 3], [0, 1, 0], [1 / 3, 1 / 3, 1 / 3]])
    shares = Majority(classes=3, class_prior=(0.5, 0.25, 0.25)).fit(votes).predict_proba(votes)
    assert shares[2].tolist() == [0.5, 0.25, 0.25]


def test_in_majority_all_sources_count_the_same():
    model = Majority().fit([[1, -1], [1, 0]])
    assert model.weight_.tolist() == [1, 1]
    assert np.isnan(model.accuracy_).all()
