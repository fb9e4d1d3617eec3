"""The sign, the cosine and the weights of training."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.scoring.alignment.scores import mimic_cosine, mimic_score, sample_weights

SCORES = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)


def test_a_loss_that_falls_along_the_way_scores_above_0():
    scores = mimic_score(torch.tensor([-2.0, 0.0, 3.0]), 4.0)
    assert scores.tolist() == [0.5, 0.0, -0.75]
    assert mimic_score(torch.tensor([-2.0], dtype=torch.bfloat16), 3.0).dtype == torch.float32


def test_cosines_divide_by_the_length_of_the_gradient():
    found = mimic_cosine(torch.tensor([1.0, -1.0, 0.0, 3.0, 1e-30]), torch.tensor([2.0, 1.0, 0.0, 2.99999, 2e-30]))
    assert found.tolist() == pytest.approx([0.5, -1.0, 0.0, 1.0, 0.5])


def test_a_gradient_that_is_no_number_gives_no_cosine():
    found = mimic_cosine(torch.tensor([1.0, math.nan]), torch.tensor([math.nan, 1.0]))
    assert torch.isnan(found).all()


@given(SCORES, st.floats(0.05, 10), st.booleans())
def test_weights_add_up_to_1_and_follow_the_scores(scores, temperature, standardise):
    weights = sample_weights(torch.tensor(scores), temperature, standardise)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    assert (weights >= 0).all()
    order = torch.tensor(scores).argsort()
    assert (weights[order].diff() >= -1e-6).all()


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12), st.floats(0.1, 10), st.integers(-9, 9))
def test_standardised_weights_do_not_care_for_unit_and_origin(scores, factor, shift):
    plain = sample_weights(torch.tensor(scores, dtype=torch.float32), 0.5, True)
    moved = sample_weights(torch.tensor(scores, dtype=torch.float32) * factor + shift, 0.5, True)
    torch.testing.assert_close(plain, moved, atol=2e-3, rtol=2e-2)


def test_a_lower_temperature_leaves_more_to_the_best():
    scores = torch.tensor([0.0, 1.0, 2.0])
    best = [float(sample_weights(scores, temperature, False)[2]) for temperature in (10.0, 1.0, 0.1)]
    assert best == sorted(best)
    assert best[1] == pytest.approx(math.e**2 / (1 + math.e + math.e**2), rel=1e-5)


def test_scores_that_are_no_numbers_weigh_nothing():
    weights = sample_weights(torch.tensor([math.nan, 1.0, math.inf, 1.0]), 0.5, True)
    assert weights.tolist() == pytest.approx([0, 0.5, 0, 0.5])
    assert sample_weights(torch.tensor([math.nan] * 4), 0.5, False).tolist() == [0.25] * 4
    assert sample_weights(torch.tensor([3.0] * 4), 0.5, True).tolist() == pytest.approx([0.25] * 4)
    assert sample_weights(torch.tensor([]), 0.5, True).tolist() == []
