"""Losses of single samples against those that open_clip trains with, and against torch's own."""

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from chaffinch.scoring.alignment.losses import Logits, against_bank, classification, within_batch


def unit(count, seed, dimensions=6):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, dimensions, generator=generator), dim=1)


def logits(scale=7.0, bias=None):
    return Logits(torch.tensor(scale), None if bias is None else torch.tensor(bias))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_mean_over_a_batch_is_what_clips_are_trained_with(count):
    pictures, captions = unit(count, 0), unit(count, 1)
    contrastive = open_clip.ClipLoss()(pictures, captions, torch.tensor(7.0))
    assert within_batch(pictures, captions, logits()).mean() == pytest.approx(float(contrastive), rel=1e-5)
    sigmoid = open_clip.loss.SigLipLoss()(pictures, captions, torch.tensor(7.0), torch.tensor(-3.0))
    assert within_batch(pictures, captions, logits(bias=-3.0)).mean() == pytest.approx(float(sigmoid), rel=1e-5)


@pytest.mark.parametrize("bias", [None, -3.0])
def test_among_a_bank_of_the_rest_of_a_batch_the_losses_are_those_within_it(bias):
    """Each sample's own bank: all others. So both forms are one loss with different negatives."""
    pictures, captions = unit(5, 0), unit(5, 1)
    hidden = torch.eye(5, dtype=torch.bool)
    banked = against_bank(pictures, captions, pictures, captions, hidden, logits(bias=bias))
    torch.testing.assert_close(banked, within_batch(pictures, captions, logits(bias=bias)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [None, -3.0])
def test_hidden_negatives_are_as_if_they_were_not_there(bias):
    pictures, captions, bank = unit(3, 0), unit(3, 1), (unit(4, 2), unit(4, 3))
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[:, 1] = True
    rest = [0, 2, 3]
    found = against_bank(pictures, captions, *bank, hidden, logits(bias=bias))
    without = against_bank(pictures, captions, bank[0][rest], bank[1][rest], hidden[:, rest], logits(bias=bias))
    torch.testing.assert_close(found, without)
    alone = against_bank(pictures, captions, *bank, torch.ones(3, 4, dtype=torch.bool), logits(bias=bias))
    own = (pictures * captions).sum(dim=1) * 7
    torch.testing.assert_close(alone, torch.zeros(3) if bias is None else functional.softplus(3.0 - own))


@given(st.floats(1, 100), st.sampled_from([None, -10.0, 0.0]), st.integers(0, 50))
def test_losses_are_never_negative_and_grow_with_every_negative(scale, bias, seed):
    bank, hidden = (unit(4, seed), unit(4, seed + 1)), torch.zeros(1, 4, dtype=torch.bool)
    losses = []
    for count in range(5):
        parts = (bank[0][:count], bank[1][:count], hidden[:, :count])
        losses.append(float(against_bank(unit(1, seed + 2), unit(1, seed + 3), *parts, logits(scale, bias))))
    assert losses[0] >= 0
    assert (np.diff(losses) >= -1e-5 * max(losses)).all()
    assert np.isfinite(losses).all()


def test_confident_models_lose_no_digits_to_overflow():
    pictures = unit(2, 0)
    loss = against_bank(pictures, pictures, -pictures, -pictures, torch.zeros(2, 2, dtype=torch.bool), logits(100.0))
    assert torch.isfinite(loss).all()
    worst = against_bank(pictures, -pictures, pictures, pictures, torch.zeros(2, 2, dtype=torch.bool), logits(100.0))
    assert (worst > 100).all()


def test_classification_is_cross_entropy_in_float32():
    outputs, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1])
    expected = [-float(torch.log_softmax(row, 0)[label]) for row, label in zip(outputs, labels, strict=True)]
    assert classification(outputs, labels).tolist() == pytest.approx(expected, rel=1e-5)
    assert classification(outputs.bfloat16(), labels).dtype == torch.float32
