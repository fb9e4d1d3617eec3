import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    AutoProcessor,
    DetrImageProcessor,
    GroundingDinoImageProcessor,
    Owlv2ImageProcessor,
    OwlViTImageProcessor,
)
from transformers.image_transforms import get_size_with_aspect_ratio

from chaffinch.scoring.detecting.canvases import MAX_ASPECT_RATIO, Canvases, Prepared
from chaffinch.scoring.scorer import SampleError

PUBLISHED = {"shortest_edge": 800, "longest_edge": 1333}
SIDES = st.integers(1, 4000)


@pytest.fixture(scope="module")
def published():
    return Canvases(GroundingDinoImageProcessor(size=PUBLISHED), squares=False)


def scaled(width, height):
    """A picture as transformers scales it, without its pixels."""
    size = get_size_with_aspect_ratio((height, width), 800, 1333)
    return Prepared(torch.empty((3, *size), device="meta"), (width, height))


def test_there_are_few_canvases_and_common_aspects_fill_theirs(published):
    assert len(published.sizes) == 15
    assert published.find(scaled(7, 1334)) == (1442, 800)
    for width, height in ((500, 500), (640, 480), (480, 640), (1024, 683), (1920, 1080), (720, 1280)):
        prepared = scaled(width, height)
        canvas = published.find(prepared)
        assert prepared.pixels[0].numel() > 0.99 * canvas[0] * canvas[1], (width, height, canvas)


@given(SIDES, SIDES)
def test_every_picture_has_a_canvas_of_its_own_aspect_with_little_waste(width, height):
    canvases = Canvases(GroundingDinoImageProcessor(size=PUBLISHED), squares=False)
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        return
    prepared = scaled(width, height)
    canvas = canvases.find(prepared)
    assert canvas[0] >= prepared.pixels.shape[1]
    assert canvas[1] >= prepared.pixels.shape[2]
    if max(width, height) < 5 * min(width, height) and max(prepared.pixels.shape) <= 1333:
        assert prepared.pixels[0].numel() > 0.49 * canvas[0] * canvas[1]


@pytest.mark.parametrize("family", ["grounding-dino", "owlvit", "owlv2", "omdet-turbo"])
def test_pictures_are_those_of_the_image_processor(family, small_detector, photos):
    processor = AutoProcessor.from_pretrained(small_detector(family)).image_processor
    canvases = Canvases(processor, squares=family == "owlv2")
    prepared = [canvases.prepare(photo) for photo in photos]
    assert [one.size for one in prepared] == [photo.size for photo in photos]
    for photo, one in zip(photos, prepared, strict=True):
        canvas = canvases.find(one)
        options = {"pad_size": {"height": canvas[0], "width": canvas[1]}} if family == "grounding-dino" else {}
        expected = processor(photo, return_tensors="pt", **options)
        neighbours = [other for other in prepared if canvases.find(other) == canvas]
        pixels, mask = canvases.stack([one, *neighbours, one], canvas, "cpu")
        np.testing.assert_allclose(pixels[0], expected.pixel_values[0], rtol=0, atol=1e-5)
        assert torch.equal(pixels[0], pixels[-1])
        if family == "grounding-dino":
            assert torch.equal(mask[:1].long(), expected.pixel_mask)
            assert one.pixels.dtype == torch.uint8


def test_a_canvas_is_black_after_normalising_beside_the_picture(published):
    pixels, mask = published.stack([published.prepare(Image.new("RGB", (5, 4), "white"))], (1066, 1066), "cpu")
    assert int(mask.sum()) == 800 * 1000
    assert pixels[0, :, 800:].abs().max() == 0
    assert pixels[0, :, :, 1000:].abs().max() == 0
    assert pixels[0, :, :800, :1000].min() > 2


def test_strips_are_refused_before_they_take_memory(published):
    with pytest.raises(SampleError, match="too elongated to be scaled: 60000 x 2 pixels"):
        published.prepare(Image.new("RGB", (60_000, 2)))
    assert published.prepare(Image.new("RGB", (400, 2))).pixels.shape[-1] <= 1333
    assert published.prepare(Image.new("RGB", (1, 1))).pixels.shape == (3, 800, 800)


def test_squares_of_large_pictures_are_bounded():
    canvases = Canvases(Owlv2ImageProcessor(size={"height": 960, "width": 960}), squares=True)
    prepared = canvases.prepare(Image.new("RGB", (20_000, 140), "red"))
    assert prepared.size == (20_000, 140)
    assert prepared.pixels.shape == (3, 960, 960)
    assert prepared.pixels[0, :6].min() > 0.9  # the strip lies at the top
    assert prepared.pixels[:, 10:].max() == 0


def test_other_ways_to_give_a_size():
    assert Canvases(OwlViTImageProcessor(size={"height": 96, "width": 80}), squares=False).sizes == ((96, 80),)
    assert Canvases(DetrImageProcessor(size={"max_height": 96, "max_width": 80}), squares=False).sizes == ((96, 80),)
    with pytest.raises(ValueError, match="give shortest_edge and longest_edge"):
        Canvases(OwlViTImageProcessor(size={"shortest_edge": 96}), squares=False)
