import io
import math
import statistics
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFilter

from chaffinch.scoring.pictures import Pictures
from chaffinch.scoring.scorer import Batch

pixels = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))


def measure(*pictures: Image.Image) -> dict[str, np.ndarray]:
    scorer = Pictures()
    prepared = [scorer.prepare(picture, None) for picture in pictures]
    return dict(scorer.score(Batch([""] * len(pictures), [""] * len(pictures), prepared), None))


def distance(first: np.uint64, second: np.uint64) -> int:
    return (int(first) ^ int(second)).bit_count()


@settings(max_examples=40, deadline=None)
@given(pixels)
def test_light_and_colour_agree_with_plain_loops(values):
    picture = Image.fromarray(values)
    measured = measure(picture)
    grey = list(picture.convert("L").tobytes())
    colours = values.reshape(-1, 3).astype(float).tolist()
    red_green = [red - green for red, green, _ in colours]
    yellow_blue = [(red + green) / 2 - blue for red, green, blue in colours]
    spread = math.hypot(statistics.pstdev(red_green), statistics.pstdev(yellow_blue))
    centre = math.hypot(statistics.fmean(red_green), statistics.fmean(yellow_blue))
    shares = [grey.count(level) / len(grey) for level in set(grey)]
    expected = {
        "brightness": statistics.fmean(grey) / 255,
        "contrast": statistics.pstdev(grey) / 255,
        "entropy": -sum(share * math.log2(share) for share in shares),
        "colourfulness": spread + 0.3 * centre,
    }
    for name, value in expected.items():
        assert measured[name][0] == pytest.approx(value, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("size", [(256, 40), (31, 256), (90, 60), (500, 300), (256, 1)])
def test_sharpness_and_blur_agree_with_plain_loops(size):
    picture = Image.effect_noise(size, 70).filter(ImageFilter.BLUR).convert("RGB")
    longer = max(size)
    grey = picture.convert("L").resize(
        tuple(max(1, round(side * 256 / longer)) for side in size), Image.Resampling.BILINEAR
    )
    width, height = grey.size
    levels = np.asarray(grey).astype(int).tolist()

    def level(row: int, column: int) -> int:
        return levels[min(max(row, 0), height - 1)][min(max(column, 0), width - 1)]

    laplacian = [
        level(row - 1, column) + level(row + 1, column) + level(row, column - 1) + level(row, column + 1)
        - 4 * level(row, column)
        for row in range(height)
        for column in range(width)
    ]  # fmt: skip
    measured = measure(picture)
    assert measured["sharpness"][0] == pytest.approx(statistics.pvariance(laplacian), rel=1e-5)
    lines = [[line[index + 1] - line[index] for index in range(width - 1)] for line in levels]
    columns = [[levels[row + 1][column] - levels[row][column] for row in range(height - 1)] for column in range(width)]
    assert measured["blur"][0] == pytest.approx(max(agreement(lines), agreement(columns)), rel=1e-5)


def agreement(slopes: list[list[int]]) -> float:
    """Sum of products of successive slopes over the sum of squares; least of all where there is no slope."""
    squares = sum(slope * slope for line in slopes for slope in line)
    products = sum(line[index] * line[index + 1] for line in slopes for index in range(len(line) - 1))
    return products / squares if squares else -math.inf


@settings(max_examples=40, deadline=None)
@given(pixels)
def test_blank_is_the_fullest_window_of_levels(values):
    picture = Image.fromarray(values)
    grey = list(picture.convert("L").tobytes())
    fullest = max(sum(low <= level < low + 16 for level in grey) for low in range(241))
    assert measure(picture)["blank"][0] == pytest.approx(fullest / len(grey))


def test_the_hash_agrees_with_a_plain_cosine_transform(photos):
    for photo in photos:
        grey = np.asarray(photo.convert("L").resize((32, 32), Image.Resampling.BILINEAR)).astype(float).tolist()
        waves = [[math.cos(math.pi * i * (2 * x + 1) / 64) for x in range(32)] for i in range(8)]
        coefficients = [
            sum(grey[y][x] * waves[i][y] * waves[j][x] for y in range(32) for x in range(32))
            for i in range(8)
            for j in range(8)
        ]
        median = statistics.median(coefficients[1:])
        expected = int("".join("1" if value > median else "0" for value in coefficients), 2)
        if photo.size[0] <= 512:  # larger ones are reduced first
            assert distance(measure(photo)["hash"][0], np.uint64(expected)) <= 1  # whole numbers round a cosine


def test_sizes_are_those_of_the_stored_picture():
    measured = measure(Image.new("RGB", (4000, 30)), Image.new("RGB", (7, 7)), Image.new("RGB", (10, 25)))
    np.testing.assert_array_equal(measured["width"], [4000, 7, 10])
    np.testing.assert_array_equal(measured["height"], [30, 7, 25])
    np.testing.assert_array_equal(measured["shorter_side"], [30, 7, 10])
    np.testing.assert_allclose(measured["aspect_ratio"], [4000 / 30, 1, 2.5], rtol=1e-6)


@pytest.mark.parametrize("colour", ["black", "white", (9, 200, 31)])
def test_a_flat_picture_has_no_contrast(colour):
    flat, same = Image.new("RGB", (50, 20), colour), Image.new("RGB", (640, 640), colour)
    measured = measure(flat, same)
    for name in ("sharpness", "contrast", "entropy"):
        np.testing.assert_array_equal(measured[name], 0)
    for name in ("blank", "border", "border_left", "border_top", "border_right", "border_bottom"):
        np.testing.assert_array_equal(measured[name], 1)
    for name in ("blur", "inner_aspect_ratio"):
        assert np.isnan(measured[name]).all()
    expected = {"black": 0, "white": 1}.get(colour, (9 * 299 + 200 * 587 + 31 * 114) / 255_000)
    np.testing.assert_allclose(measured["brightness"], expected, atol=0.5 / 255)
    assert distance(measured["hash"][0], measured["hash"][1]) == 0


@settings(max_examples=60, deadline=None)
@given(pixels)
def test_measures_stay_in_their_ranges(values):
    measured = {name: value[0] for name, value in measure(Image.fromarray(values)).items()}
    assert 0 <= measured["sharpness"] <= 1_040_400
    assert np.isnan(measured["blur"]) or -1 <= measured["blur"] <= 1
    assert 1 / 16 <= measured["blank"] <= 1
    assert all(0 <= measured[name] <= 1 for name in measured if name.startswith("border"))
    assert np.isnan(measured["inner_aspect_ratio"]) or measured["inner_aspect_ratio"] >= 1
    assert 0 <= measured["brightness"] <= 1
    assert 0 <= measured["contrast"] <= 0.5
    assert 0 <= measured["entropy"] <= 8
    assert 0 <= measured["colourfulness"] <= 298  # half blue, half yellow
    assert measured["aspect_ratio"] >= 1


def test_blur_lowers_sharpness_and_grey_lowers_colourfulness(photos):
    for photo in photos:
        blurred, grey = photo.filter(ImageFilter.GaussianBlur(3)), photo.convert("L").convert("RGB")
        measured = measure(photo, blurred, grey)
        assert measured["sharpness"][1] < measured["sharpness"][0]
        assert measured["colourfulness"][2] == 0 < measured["colourfulness"][0]


def shaken(picture: Image.Image, steps: int) -> Image.Image:
    """As if the camera had moved sideways while the shutter was open."""
    values = np.asarray(picture).astype(int)
    return Image.fromarray((sum(np.roll(values, step, 1) for step in range(steps)) // steps).astype(np.uint8))


def scene(width: int, height: int) -> Image.Image:
    """Noise in which a wave of twice the length is twice as strong, as it is in photos."""
    generator = np.random.default_rng(5)
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    waves[0, 0] = np.inf
    values = np.fft.ifft2(np.fft.fft2(generator.normal(size=(height, width))) / waves).real
    return Image.fromarray((128 + 45 * values / values.std()).clip(0, 255).astype(np.uint8)).convert("RGB")


def test_blur_is_told_from_low_contrast():
    sharp = scene(300, 240)
    faint = sharp.point(lambda level: 110 + level // 12)
    turned = sharp.transpose(Image.Transpose.TRANSPOSE)
    spoiled = [
        sharp.filter(ImageFilter.GaussianBlur(2)),
        shaken(sharp, 9),
        shaken(turned, 9).transpose(Image.Transpose.TRANSPOSE),
        sharp.resize((60, 48), Image.Resampling.BOX).resize((300, 240), Image.Resampling.BICUBIC),
    ]
    measured = measure(sharp, faint, *spoiled)
    assert measured["blur"][:2].max() < 0.5
    assert measured["blur"][2:].min() > 0.7
    assert measured["sharpness"][1] < measured["sharpness"][2:].min()  # here sharpness is wrong about all of them


def test_noise_has_a_blur_of_minus_one_half():
    noise = Image.effect_noise((256, 256), 60).convert("RGB")
    assert measure(noise)["blur"][0] == pytest.approx(-0.5, abs=0.02)


def test_a_card_with_a_line_of_text_is_blank_and_a_photo_is_not():
    card = Image.new("RGB", (320, 240), (250, 250, 252))
    ImageDraw.Draw(card).text((40, 110), "This image is no longer available", (60, 60, 60))
    ramp = Image.linear_gradient("L").convert("RGB")  # each of the 256 levels equally often
    blank = measure(card, ramp)["blank"]
    assert blank[0] > 0.9
    assert blank[1] == 1 / 16


def test_frames_of_known_size_are_found_and_a_strip_inside_is_told():
    photo = Image.effect_noise((400, 100), 60).convert("RGB")
    square = Image.new("RGB", (400, 400), "black")
    square.paste(photo, (0, 200))
    measured = {name: value[0] for name, value in measure(square).items()}
    sides = [measured[f"border_{side}"] for side in ("left", "top", "right", "bottom")]
    assert sides == [0, 0.5, 0, 0.25]
    assert measured["border"] == 0.75
    assert measured["aspect_ratio"] == 1
    assert measured["inner_aspect_ratio"] == 4


def test_the_inside_of_a_frame_is_measured_in_stored_pixels():
    """2000 x 1000 pixels are reduced by 4 before they are looked at; the shares and the ratio stay."""
    picture = Image.new("RGB", (2000, 1000), "white")
    picture.paste(Image.effect_noise((1000, 1000), 60).convert("RGB").resize((1600, 400)), (200, 400))
    measured = {name: value[0] for name, value in measure(picture).items()}
    assert measured["border_left"] == measured["border_right"] == np.float32(0.1)
    assert (measured["border_top"], measured["border_bottom"]) == (np.float32(0.4), np.float32(0.2))
    assert measured["inner_aspect_ratio"] == pytest.approx(4)


def test_one_pixel_is_measured():
    measured = {name: value[0] for name, value in measure(Image.new("RGB", (1, 1), (7, 8, 9))).items()}
    assert (measured["width"], measured["height"], measured["blank"], measured["border"]) == (1, 1, 1, 1)
    assert np.isnan(measured["blur"])


def test_sharpness_compares_between_sizes():
    picture = Image.effect_noise((64, 64), 90).resize((1024, 1024), Image.Resampling.BICUBIC).convert("RGB")
    sizes = [picture.resize((side, side), Image.Resampling.LANCZOS) for side in (256, 500, 1024)]
    sharpness = measure(*sizes)["sharpness"]
    assert sharpness.max() < 1.5 * sharpness.min()


def test_near_duplicates_have_near_hashes_and_others_do_not(photos):
    hashes = measure(*photos)["hash"]
    for index, photo in enumerate(photos):
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=60)
        brighter = photo.point(lambda level: min(255, level + 8))
        larger = photo.resize((photo.width * 2, photo.height * 2), Image.Resampling.BICUBIC)
        for near in measure(Image.open(file).convert("RGB"), brighter, larger)["hash"]:
            assert distance(hashes[index], near) <= 6
        for other in range(index):
            assert distance(hashes[index], hashes[other]) >= 16


def test_large_pictures_take_bounded_time():
    picture = Image.effect_noise((4000, 3000), 50).convert("RGB")
    start = time.process_time()
    measure(picture)
    assert time.process_time() - start < 0.5  # some 15 ms; all of its pixels would take a second
