"""Votes and scores in any form that people have them in mean what the plain array means."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from chaffinch.filters.label_models import Anchored, Auto, CleanVsPool, DawidSkene, Gaussian, Majority
from chaffinch.filters.label_models.tables import count_batches, read_scores, read_votes
from chaffinch.filters.label_models.votes import count_patterns, distinct_patterns

NAMES = ("words", "blur", "clip")


def some_votes(seed=0, n=300, m=3):
    rng = np.random.default_rng(seed)
    truth = rng.choice([-1, 1], n)
    votes = np.where(rng.random((n, m)) < 0.8, truth[:, None], -truth[:, None])
    return (votes * (rng.random((n, m)) < 0.7)).astype(np.int8)


class Streams:
    """A table of another library: all that is known of it is Arrow's stream."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def nullable(votes):
    return pd.DataFrame({name: pd.array([vote or None for vote in column], "Int8") for name, column in named(votes)})


def with_nan(votes):
    return pd.DataFrame({name: np.where(column == 0, np.nan, column) for name, column in named(votes)})


def of_objects(votes):
    return pd.DataFrame(
        {name: pd.Series([int(v) or None for v in column], dtype=object) for name, column in named(votes)}
    )


def arrow(votes):
    return pa.table({name: [int(vote) or None for vote in column] for name, column in named(votes)})


def named(votes):
    return zip(NAMES, votes.T, strict=True)


FORMS = {
    "nullable integers": nullable,
    "floats with NaN": with_nan,
    "objects with None": of_objects,
    "an index that is no number": lambda votes: nullable(votes).set_index(
        pd.Index([f"{row:x}" for row in range(len(votes))])
    ),
    "zeros": lambda votes: pd.DataFrame(votes, columns=NAMES),
    "arrow": arrow,
    "a record batch": lambda votes: arrow(votes).combine_chunks().to_batches()[0],
    "several chunks": lambda votes: pa.concat_tables([arrow(votes[:100]), arrow(votes[100:])]),
    "another library": lambda votes: Streams(arrow(votes)),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))


@each_form
def test_a_table_means_what_the_array_means(form):
    votes = some_votes()
    read, names = read_votes(form(votes))
    assert read.dtype == np.int8
    assert names == NAMES
    np.testing.assert_array_equal(read, votes)
    model = DawidSkene().fit(form(votes))
    plain = DawidSkene().fit(votes)
    np.testing.assert_array_equal(model.predict_proba(form(votes)), plain.predict_proba(votes))
    assert model.feature_names_in_.tolist() == list(NAMES)
    np.testing.assert_array_equal(plain.predict_proba(form(votes)), plain.predict_proba(votes))
    np.testing.assert_array_equal(model.predict_proba(votes.tolist()), plain.predict_proba(votes))


@each_form
def test_scores_are_read_from_the_same_tables(form):
    read, names = read_scores(form(some_votes()))
    votes = some_votes().astype(float)
    assert names == NAMES
    np.testing.assert_array_equal(np.nan_to_num(read), votes)


def test_columns_are_found_by_their_names():
    votes = some_votes()
    model = DawidSkene().fit(arrow(votes))
    other = arrow(votes).select(["clip", "words", "blur"]).append_column("uid", [["x"] * len(votes)])
    np.testing.assert_array_equal(model.predict_proba(other), model.predict_proba(votes))
    with pytest.raises(
        ValueError, match=r"no column, or several, named 'blur'.*it has 'clip', 'words', 'uid'.*in that order"
    ):
        model.predict_proba(other.drop_columns(["blur"]))


def test_names_survive_json_and_end_with_the_fit_that_had_them():
    votes = some_votes()
    model = DawidSkene().fit(arrow(votes))
    restored = DawidSkene.restore(json.loads(json.dumps(model.state())))
    turned = arrow(votes).select(list(reversed(NAMES)))
    np.testing.assert_array_equal(restored.predict_proba(turned), model.predict_proba(votes))
    assert restored.state() == model.state()
    assert not hasattr(model.fit(votes), "feature_names_in_")
    assert "feature_names_in_" not in model.state()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"a": [1, 0], "b": [0.5, 1]}), "column 'b' holds 0.5, and votes must be whole numbers"),
        (pd.DataFrame({"a": [1, 300]}), "column 'a' holds 300"),
        (pd.DataFrame({"a": [1, np.inf]}), "column 'a' holds inf"),
        (pd.DataFrame({"uid": ["x", "y"], "a": [1, 1]}), r"column 'uid' holds .*string, not votes: leave it out"),
        (pd.DataFrame({"a": [True, False]}), r"column 'a' holds bool, not votes: write \+1 for true"),
        (pd.DataFrame({"a": pd.Categorical([1, -1])}), "column 'a' holds dictionary"),
        (pd.DataFrame({"a": [1, "x"]}), "no table with a column of numbers per source"),
        (pa.table([[1], [1]], names=["a", "a"]), "more than one column 'a'"),
        (pd.Series([1, 0]), r"not of shape \(2,\)"),
        (pa.chunked_array([[1, 0]]), "no table with a column of numbers per source"),
        ([[1, None]], "NaN and None are no votes"),
        ([["keep", "drop"]], "votes must be whole numbers"),
        (np.array([[True]]), r"\+1 and -1 for true and false"),
        (np.array([[np.nan, 1]]), "in a table they are abstains"),
    ],
)
def test_what_is_no_vote_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        Majority().fit(table)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([["a"]], "scores must be numbers"),
        ([[True]], "scores must be numbers"),
        (pd.DataFrame({"a": ["x"]}), "column 'a' holds .*string, not scores"),
    ],
)
def test_what_is_no_score_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        read_scores(scores)


def test_a_column_without_any_vote_abstains():
    read, _ = read_votes(pa.table({"a": [1, -1], "b": [None, None]}))
    assert read.tolist() == [[1, 0], [-1, 0]]
    assert np.isnan(read_scores(pa.table({"b": [None, None]}))[0]).all()


@given(
    nps.arrays(np.int8, st.tuples(st.integers(0, 60), st.integers(1, 4)), elements=st.integers(-1, 4)),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_batches_count_what_the_whole_counts(votes, cuts):
    batches = np.split(votes, sorted(cuts))
    patterns, counts, names = count_batches(iter(batches))
    expected = count_patterns(votes)
    np.testing.assert_array_equal(patterns, expected[0])
    np.testing.assert_array_equal(counts, expected[1])
    assert names is None


def test_batches_are_merged_when_many_patterns_have_gathered(monkeypatch):
    monkeypatch.setattr("chaffinch.filters.label_models.tables._MOST_LOOSE", 4)
    votes = some_votes(n=2000, m=5)
    patterns, counts, _ = count_batches(np.split(votes, 100))
    expected = count_patterns(votes)
    np.testing.assert_array_equal(patterns, expected[0])
    np.testing.assert_array_equal(counts, expected[1])


def test_a_fit_to_batches_is_the_fit_to_all_of_them():
    votes = some_votes()
    batches = [arrow(votes[:120]), arrow(votes[120:]).select(["clip", "blur", "words"])]
    model = DawidSkene().fit_batches(batches)
    assert model.state() == DawidSkene().fit(arrow(votes)).state()
    assert Majority().fit_batches(np.split(votes, 3)).state() == Majority().fit(votes).state()


def test_batches_that_do_not_fit_together_are_refused():
    votes = some_votes()
    with pytest.raises(ValueError, match="no batch"):
        DawidSkene().fit_batches([])
    with pytest.raises(ValueError, match="votes of 2 sources, the first of 3"):
        DawidSkene().fit_batches([votes, votes[:, :2]])
    with pytest.raises(ValueError, match="named 'clip'"):
        DawidSkene().fit_batches([arrow(votes), arrow(votes).drop_columns(["clip"])])
    with pytest.raises(ValueError, match="within the whole pool"):
        Gaussian().fit_batches([votes])


@pytest.mark.parametrize("model", [Anchored, Auto])
def test_a_reference_is_matched_by_name(model):
    votes = some_votes()
    reference = votes[(votes.sum(axis=1) > 1)][:40]
    plain = model().fit(votes, reference=reference)
    found = model().fit(arrow(votes), reference=arrow(reference).select(["clip", "blur", "words"]))
    assert found.feature_names_in_.tolist() == list(NAMES)
    assert {**found.state(), "feature_names_in_": None} == {**plain.state(), "feature_names_in_": None}


def test_anchored_fits_to_batches():
    votes = some_votes()
    reference = votes[(votes.sum(axis=1) > 1)][:40]
    found = Anchored().fit_batches([votes[:50], votes[50:]], reference=reference)
    assert found.state() == Anchored().fit(votes, reference=reference).state()
    with pytest.raises(ValueError, match="but has none"):
        Anchored().fit_batches([votes])


def test_models_over_scores_match_columns_by_name_too():
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.5
    scores = rng.standard_normal((600, 3)) + np.where(truth, 1, -1)[:, None]
    scores[rng.random(scores.shape) < 0.1] = np.nan
    table = pd.DataFrame(scores, columns=NAMES)
    good = table[truth].head(60)
    turned = table[["clip", "blur", "words"]]
    model, plain = Gaussian().fit(table), Gaussian().fit(scores)
    np.testing.assert_array_equal(model.predict_proba(turned), plain.predict_proba(scores))
    against = CleanVsPool().fit(table, reference=good[["blur", "words", "clip"]])
    expected = CleanVsPool().fit(scores, reference=good.to_numpy())
    np.testing.assert_array_equal(against.predict_proba(turned), expected.predict_proba(scores))
    with pytest.raises(ValueError, match="named 'clip'"):
        model.predict_proba(table.drop(columns="clip"))


@given(seed=st.integers(0, 100), m=st.sampled_from([0, 1, 4, 12, 39, 60]), n=st.sampled_from([0, 1, 50, 3000]))
def test_patterns_are_found_by_bins_by_sorting_and_by_rows_alike(seed, m, n):
    rng = np.random.default_rng(seed)
    votes = np.where(rng.random((n, m)) < 0.2, rng.integers(-1, 2, (n, m)), rng.integers(-1, 2, m)).astype(np.int8)
    patterns, inverse, counts = distinct_patterns(votes)
    np.testing.assert_array_equal(patterns[inverse], votes)
    assert [tuple(row) for row in patterns.tolist()] == sorted(set(map(tuple, votes.tolist())))
    np.testing.assert_array_equal(np.bincount(inverse, minlength=len(patterns)), counts)
    again = count_patterns(votes)
    np.testing.assert_array_equal(again[0], patterns)
    np.testing.assert_array_equal(again[1], counts)


def test_votes_far_apart_are_counted_before_they_are_refused():
    patterns, counts = count_patterns(np.array([[127, -1], [127, -1]]))
    assert patterns.tolist() == [[127, -1]]
    assert counts.tolist() == [2]
