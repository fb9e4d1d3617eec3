"""The fast path against the exact one: where it must be equal, and how far it may stray."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from chaffinch.scoring.clip import Clip
from chaffinch.scoring.clips import drafts
from chaffinch.scoring.clips.drafts import Draft, Geometry
from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import Batch, SampleError, fingerprint

TINY = "ViT-S-32-alt"
ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"
PLAIN = {"mean": (0.0,) * 3, "deviation": (1 / 255,) * 3}  # so that what comes out are pixels


def encode(picture: Image.Image, form: str = "JPEG") -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **({"quality": 95} if form == "JPEG" else {}))
    return content.getvalue()


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def ramp(size: tuple[int, int]) -> Image.Image:
    """From black on the left to white on the right, and from top to bottom in the second colour."""
    across, down = (np.linspace(0, 255, side) for side in size)
    pixels = np.zeros((size[1], size[0], 3))
    pixels[..., 0], pixels[..., 1] = across[None], down[:, None]
    return Image.fromarray(pixels.round().astype(np.uint8))


@pytest.fixture(scope="module")
def fast(checkpoint):
    scorer = Clip(TINY, str(checkpoint), fast=True)
    return scorer, scorer.load("cpu")


geometries = st.builds(
    Geometry,
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([None, 40, 57]),
    st.sampled_from(["bilinear", "bicubic"]),
    rounds=st.booleans(),
    **{name: st.just(value) for name, value in PLAIN.items()},
)


@settings(deadline=None, max_examples=150)
@given(geometries, st.integers(1, 400), st.integers(1, 400), st.sampled_from(["JPEG", "PNG"]))
def test_a_device_scales_as_pillow_does(geometry, width, height, form):
    """What stands for a GPU here is the same arithmetic on the cpu."""
    if max(width, height) > 200 * min(width, height):
        return
    file = encode(noise((width, height), width), form)
    at_once, later = geometry.open(file, "cpu"), geometry.open(file, "cuda")
    assert isinstance(later, Draft)
    assert later.pixels.dtype == torch.uint8
    difference = (geometry.finish(later, "cpu") - at_once).abs()
    assert at_once.shape == (3, geometry.height, geometry.width)
    assert difference.max() < 2.01  # levels: a rounding of either pass may fall to the other side


@pytest.mark.parametrize("size", [(500, 375), (1000, 401), (300, 90), (2000, 1501), (5000, 30)])
@pytest.mark.parametrize("shorter", [None, 224, 256])
def test_a_device_seldom_rounds_to_the_other_side(size, shorter):
    geometry = Geometry(224, 224, shorter, "bicubic", rounds=True, **PLAIN)
    file = encode(noise(size))
    difference = (geometry.finish(geometry.open(file, "cuda"), "cpu") - geometry.open(file, "cpu")).abs()
    assert difference.mean() < 0.01


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("size", [(224, 224), (640, 480), (90, 300), (257, 33), (671, 900), (20, 20), (1343, 673)])
def test_pictures_of_no_more_than_thrice_the_input_are_those_of_open_clip(fast, size, form):
    scorer, model = fast
    file = encode(noise(size), form)
    difference = (scorer.prepare_file(file, model) - model.transform(decode(file))).abs()
    assert difference.max() < 1.01 / 255 / min(model.geometry.deviation)  # a level: Pillow's boxes are float32
    assert (difference > 1e-5).float().mean() < 1e-3


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2 of fixed size"])
def test_pictures_of_no_more_than_thrice_the_input_are_those_of_transformers(checkpoints, photos, kind):
    scorer = Clip(str(checkpoints[kind]), library="transformers", fast=True)
    model = scorer.load("cpu")
    deviation = min(model.geometry.deviation)
    for photo in [*photos, ramp((191, 130))]:
        if min(photo.size) >= 3 * 64:
            continue
        file = encode(photo, "PNG")
        exact = model.transform(photo)["pixel_values"][0]
        difference = (scorer.prepare_file(file, model) - exact).abs() * deviation * 255
        assert difference.max() < 2.01  # levels, for torchvision rounds its weights
        assert difference.mean() < 0.5


@pytest.mark.parametrize("size", [(97, 99), (96, 97), (101, 333), (195, 193), (383, 97), (1001, 403)])
@pytest.mark.parametrize("shorter", [None, 16])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_drafts_of_any_size_stay_in_place(size, shorter, form):
    """Of 97 pixels a half draft has 49, the last of them for one: taken for two it would shift all others."""
    geometry = Geometry(16, 16, shorter, "bicubic", rounds=True, **PLAIN)
    file = encode(ramp(size), form)
    left, top, right, bottom = geometry._box(*size, 1)
    exact = decode(file).resize((16, 16), Image.Resampling.BICUBIC, (left, top, right, bottom))
    draft = geometry.open(file, "cpu").permute(1, 2, 0).numpy()
    assert np.abs(draft - np.asarray(exact, np.float32))[..., :2].max() <= 2  # a pixel to the next are 16


def test_large_jpegs_are_decoded_smaller_and_others_reduced():
    geometry = Geometry(64, 64, None, "bicubic", rounds=True, **PLAIN)
    for size, form, expected in [
        ((400, 384), "JPEG", (192, 200)),
        ((400, 383), "JPEG", (383, 400)),
        ((1600, 1600), "JPEG", (200, 200)),
        ((1600, 1600), "PNG", (200, 200)),
        ((575, 576), "PNG", (288, 288)),
    ]:
        assert geometry.open(encode(ramp(size), form), "cuda").pixels.shape[1:] == expected, (size, form)


def test_what_is_cropped_away_is_not_kept():
    geometry = Geometry(64, 64, 64, "bicubic", rounds=True, **PLAIN)
    file = encode(noise((6_000, 40)))
    draft = geometry.open(file, "cuda")
    assert draft.pixels.numel() < 3 * 40 * 50
    torch.testing.assert_close(geometry.finish(draft, "cpu"), geometry.open(file, "cpu"), rtol=0, atol=2.01)


def test_files_that_cannot_be_used_are_refused_as_ever(fast):
    scorer, model = fast
    whole = encode(noise((2_000, 1_500)))
    for file in (b"", b"<!DOCTYPE html>", whole[:5_000], b"\xff\xd8\xff" + bytes(100)):
        with pytest.raises(SampleError) as exact:
            decode(file)
        with pytest.raises(SampleError) as draft:
            scorer.prepare_file(file, model)
        assert str(draft.value) == str(exact.value)
    with pytest.raises(SampleError, match="too elongated to be scaled: 60000 x 2 pixels"):
        scorer.prepare_file(encode(Image.new("RGB", (60_000, 2))), model)


def test_the_fast_path_is_another_fingerprint(checkpoint):
    exact, quick = Clip(TINY, str(checkpoint)), Clip(TINY, str(checkpoint), fast=True)
    assert fingerprint(exact, "cpu") != fingerprint(quick, "cpu")
    assert (exact.decodes, quick.decodes) == (False, True)


def test_scores_do_not_depend_on_the_neighbours(fast, photos):
    scorer, model = fast
    files = [encode(photo.resize((photo.width * 6, photo.height * 6))) for photo in photos]

    def measure(some):
        prepared = [scorer.prepare_file(file, model) for file in some]
        return scorer.score(Batch([""] * len(some), ["a dog"] * len(some), prepared), model)["similarity"]

    alone = [measure([file])[0] for file in files]
    np.testing.assert_allclose(measure(files), alone, rtol=0, atol=1e-5)


def test_preprocessing_it_does_not_know_is_refused(checkpoints, checkpoint):
    with pytest.raises(ValueError, match="fast knows only pictures that are scaled to one size and normalised"):
        Clip(str(checkpoints["siglip2 of any aspect"]), library="transformers", fast=True).load("cpu")
    model = Clip(TINY, str(checkpoint)).load("cpu")
    model.network.visual.preprocess_cfg["resize_mode"] = "longest"
    with pytest.raises(ValueError, match="fast does not know how to fit 'longest' into 224 x 224 pixels: leave it out"):
        _ = model.geometry


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not in ../shared/data beside the repository")
@pytest.mark.parametrize(
    ("model", "weights", "longer", "count"),
    [(TINY, None, 2_000, 40), ("chaffinch-tiny", "jobs/demo/matcher.pt", 600, None)],
    ids=["random weights", "trained weights"],
)
def test_similarities_hardly_move_on_real_photos(checkpoint, model, weights, longer, count):
    """Within 0.002 where similarities spread by 0.05, as CLIPs' do, and in the same order.

    The second network is a small one, whose input of 64 pixels makes drafts of most photos, and whose similarities
    spread by five times as much: the bound grows along.
    """
    scorer = Clip(model, str(checkpoint if weights is None else ROOT / weights), fast=True)
    loaded = scorer.load("cpu")
    photos, captions = [], []
    with tarfile.open(SHARED / "coco-small" / "00000000.tar") as archive:
        for member in archive:
            content = archive.extractfile(member).read()
            if member.name.endswith(".txt"):
                captions.append(content.decode())
            if member.name.endswith(".jpg"):
                photo = decode(content)
                scale = longer / max(photo.size)
                photos.append(encode(photo.resize((round(photo.width * scale), round(photo.height * scale)))))
            if count is not None and min(len(captions), len(photos)) >= count:
                break
    batch = Batch([""] * len(photos), captions[: len(photos)], [scorer.prepare_file(photo, loaded) for photo in photos])
    quick = scorer.score(batch, loaded)["similarity"]
    exact_batch = Batch(batch.uids, batch.captions, [loaded.transform(decode(photo)) for photo in photos])
    exact = Clip(model, scorer.pretrained).score(exact_batch, loaded)["similarity"]
    drafted = sum(min(decode(photo).size) >= 2 * drafts.KEPT * loaded.geometry.height for photo in photos)
    assert drafted > len(photos) / 4
    assert np.abs(quick - exact).max() <= 0.002 * max(1, exact.std() / 0.05)
    assert spearmanr(quick, exact).statistic >= 0.999
