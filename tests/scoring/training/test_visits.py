import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chaffinch.scoring.training.recipe import Augmentation
from chaffinch.scoring.training.visits import Visits, augment

BICUBIC = Image.Resampling.BICUBIC


@given(st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 5))
def test_every_epoch_sees_every_sample_once(samples, seed, epoch):
    visits = Visits(samples, seed)
    seen = [visits.sample(epoch * samples + position) for position in range(samples)]
    assert sorted(seen) == list(range(samples))


def test_orders_follow_from_the_seed_and_differ():
    orders = {
        (seed, epoch): tuple(Visits(50, seed).sample(epoch * 50 + position) for position in range(50))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    backwards = Visits(50, 1)
    assert tuple(backwards.sample(99 - position) for position in range(50))[::-1] == orders[1, 1]


def test_chance_belongs_to_the_visit():
    assert Visits(9, 3).chance(5).random() == Visits(4, 3).chance(5).random()
    assert len({Visits(9, seed).chance(visit).random() for seed in range(3) for visit in range(3)}) == 9


@pytest.fixture
def picture():
    """Red rises to the right, green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, 200), np.linspace(0, 255, 100))
    return Image.fromarray(np.stack([across, down, 0 * across], axis=-1).astype(np.uint8))


def shares(pixels):
    """The part of the picture that was kept, as shares of its sides."""
    return np.ptp(pixels[0].astype(float)) / 255, np.ptp(pixels[1].astype(float)) / 255


def test_crops_keep_to_the_settings(picture):
    settings = Augmentation(crop=(0.4, 0.6), ratio=(0.9, 1.1))
    for squash in (False, True):
        for visit in range(40):
            pixels = augment(picture, (64, 64), settings, squash, BICUBIC, Visits(1, 0).chance(visit))
            assert pixels.shape == (3, 64, 64)
            assert pixels.dtype == np.uint8
            across, down = shares(pixels)
            assert 0.35 < across * down < 0.65
            ratio = across / down if squash else 2 * across / down
            assert 0.8 < ratio < 1.25


def test_a_crop_that_cannot_fit_is_the_largest_that_is_allowed(picture):
    settings = Augmentation(crop=(1.0, 1.0), ratio=(1.0, 1.0))
    pixels = augment(picture, (64, 64), settings, False, BICUBIC, Visits(1, 0).chance(0))
    across, down = shares(pixels)
    assert across == pytest.approx(0.5, abs=0.03)
    assert down == pytest.approx(1, abs=0.03)
    assert pixels[0].mean() == pytest.approx(127, abs=3)  # the middle


def test_whole_pictures_are_squashed_as_evaluation_squashes_them(picture):
    settings = Augmentation(crop=(1.0, 1.0), ratio=(1.0, 1.0))
    pixels = augment(picture, (48, 64), settings, True, BICUBIC, Visits(1, 0).chance(0))
    expected = np.asarray(picture.resize((64, 48), BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels, expected)


def test_flips_are_as_frequent_as_asked_for(picture):
    settings = Augmentation(crop=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.25)
    flipped = 0
    for visit in range(400):
        pixels = augment(picture, (16, 16), settings, True, BICUBIC, Visits(1, 0).chance(visit))
        flipped += int(pixels[0, 0, 0]) > int(pixels[0, 0, -1])
    assert 70 < flipped < 130


def test_the_smallest_pictures_are_enlarged():
    pixels = augment(Image.new("RGB", (1, 3)), (8, 8), Augmentation(), False, BICUBIC, Visits(1, 0).chance(0))
    assert pixels.shape == (3, 8, 8)
