import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.text.captioned_pictures import CaptionedPictures, directions, words_of


def vectors(n, d, seed=0):
    return directions(lists(np.random.default_rng(seed).normal(size=(n, d))))


def lists(rows):
    rows = np.asarray(rows, np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def pictures(found, uids=()):
    words = [frozenset()] * len(found)
    return CaptionedPictures(found, words, {uid: place for place, uid in enumerate(uids)}, {})


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 12), st.integers(0, 99))
def test_finds_what_a_loop_finds(count, d, wanted, seed):
    among, asked = vectors(count, d, seed), vectors(5, d, seed + 1)
    places, cosines = pictures(among).nearest(asked, [""] * 5, wanted)
    for vector, found, similar in zip(asked, places.tolist(), cosines.tolist(), strict=True):
        exact = [math.fsum(a * b for a, b in zip(vector, other, strict=True)) for other in among]
        assert similar == sorted(exact, reverse=True)[: len(similar)]
        assert [exact[place] for place in found] == similar
        assert len(set(found)) == len(found) == min(wanted, count)


def test_similarities_are_exact_whoever_else_is_asked():
    """Any order of summing gives the same bits, so that a batch of other size finds the same."""
    among, asked = vectors(400, 700), vectors(33, 700, seed=1)
    together = pictures(among).nearest(asked, [""] * 33, 10)
    for row in range(33):
        alone = pictures(among).nearest(asked[row : row + 1], [""], 10)
        assert alone[0][0].tolist() == together[0][row].tolist()
        assert alone[1][0].tolist() == together[1][row].tolist()
    assert (together[1] == (asked[:, ::-1] @ among[:, ::-1].T)[np.arange(33)[:, None], together[0]]).all()


def test_a_sample_is_not_its_own_neighbour():
    among = vectors(5, 4)
    places, cosines = pictures(among, "abcde").nearest(among[2:3], ["c"], 3)
    assert 2 not in places[0]
    assert np.isfinite(cosines).all()
    places, cosines = pictures(among, "abcde").nearest(among[2:3], ["c"], 9)
    assert places[0][-1] == 2
    assert cosines[0][-1] == -np.inf
    assert pictures(among, "abcde").nearest(among[2:3], ["x"], 1)[0] == [[2]]


def test_directions_are_unit_vectors_of_short_numbers():
    found = directions(lists([[3, 4], [0, 0], [np.nan, 1], [-1e-30, 0], [np.inf, 1]]))
    np.testing.assert_allclose(found[0], [0.6, 0.8], atol=5e-4)
    assert np.isnan(found[[1, 2]]).any(axis=1).all()
    assert found[3].tolist() == [-1, 0]
    assert np.isnan(found[4]).any()
    assert (found[0] == found[0].astype(np.float16)).all()
    assert directions(lists(np.zeros((0, 3)))).shape[0] == 0


def test_plain_lists_are_vectors_where_they_have_one_length():
    assert directions(pa.array([[1.0, 0.0], [0.0, 2.0]])).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="differ in length"):
        directions(pa.array([[1.0, 0.0], [2.0, 3.0, 4.0, 5.0]]))


def test_words_are_different_ones_with_letters_or_digits():
    assert words_of(["A dog's ball, a DOG!", "2 balls -- ..."]) == {"a", "dog's", "ball", "dog", "2", "balls"}
    assert words_of(["..."]) == words_of([]) == frozenset()


def test_rare_words_weigh_more():
    found = CaptionedPictures(vectors(3, 2), [frozenset()] * 3, {}, {"a": 3, "dog": 1})
    assert [found.weight(word) for word in ("a", "dog", "zebra")] == [0, math.log(2), math.log(4)]
