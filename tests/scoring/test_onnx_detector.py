"""The light detector finds planted light, on small networks of known behaviour; and objects in real photos."""

import dataclasses
import importlib.util
import io
import pickle
import re
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.scorer import Batch, fingerprint

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
CLASSES = ("red ball", "blue box")


@pytest.fixture(scope="module")
def detector(colour_detector):
    return OnnxDetector(weights=str(colour_detector()), classes=CLASSES)


def detect(scorer, pictures, captions=None, model=None):
    model = model or scorer.load("cpu")
    captions = captions or ["a caption"] * len(pictures)
    prepared = [scorer.prepare(picture, model) for picture in pictures]
    columns = scorer.score(Batch(["0" * 32] * len(pictures), captions, prepared), model)
    return pa.table(dict(columns)).to_pylist()


def scene(*spots, size=(64, 64)):
    picture = Image.new("RGB", size, (80, 80, 80))
    for colour, box in spots:
        picture.paste(colour, box)
    return picture


RED, BLUE, DIM = (255, 0, 0), (0, 0, 255), (170, 30, 30)


def test_planted_light_is_found_where_it_is(detector):
    (row,) = detect(detector, [scene((BLUE, (0, 48, 8, 56)))])
    assert row["boxes"] == [[0, 44 / 64, 12 / 64, 60 / 64]]  # two cells long around the cell's middle, and clipped
    assert row["confidences"] == pytest.approx([1], abs=1e-4)
    assert row["phrases"] == ["blue box"]


def test_boxes_are_shares_of_the_picture_whatever_its_size(detector):
    """The right half of a wide picture: on the canvas it is as wide as half of it, and half as high."""
    (row,) = detect(detector, [scene((RED, (64, 0, 128, 64)), size=(128, 64))])
    sure = [box for box, confidence in zip(row["boxes"], row["confidences"], strict=True) if confidence > 0.9]
    assert sure
    boxes = np.array(sure)
    assert (boxes[:, [0, 1]] >= [0.5 - 16 / 64, 0]).all()
    assert boxes[:, 2].max() == 1  # it ends where the picture does
    assert boxes[:, 3].max() == 1  # not at the end of the grey below it
    assert set(row["phrases"]) == {"red ball"}


def test_the_surest_comes_first_and_all_lists_are_as_long(detector):
    (row,) = detect(detector, [scene((DIM, (0, 0, 8, 8)), (RED, (48, 48, 56, 56)), (BLUE, (48, 0, 56, 8)))])
    assert row["confidences"] == sorted(row["confidences"], reverse=True)
    assert len(row["boxes"]) == len(row["confidences"]) == len(row["phrases"]) >= 3
    assert row["boxes"][-1] == [0, 0, 12 / 64, 12 / 64]
    assert row["confidences"][-1] < 0.95 < row["confidences"][-2]


def test_nothing_is_found_in_grey(detector):
    (row,) = detect(detector, [scene()])
    assert row["boxes"] == row["confidences"] == row["phrases"] == []


def test_the_floor_and_the_most_objects_are_kept_to(detector):
    spots = [(x, y, x + 8, y + 8) for x in range(0, 64, 16) for y in range(0, 64, 16)]
    picture = scene(*((DIM if place % 3 else RED, spot) for place, spot in enumerate(spots)))
    every = detect(detector, [picture])[0]
    few = detect(dataclasses.replace(detector, max_objects=3), [picture])[0]
    assert few["boxes"] == every["boxes"][:3]
    sure = detect(dataclasses.replace(detector, floor=0.9), [picture])[0]
    assert sure["confidences"] == [one for one in every["confidences"] if one >= 0.9]
    assert len(sure["boxes"]) < len(every["boxes"])


def test_of_boxes_of_one_class_that_overlap_the_surer_stays(detector):
    def largest_overlap(row):
        boxes = np.array(row["boxes"])
        same = np.equal.outer(row["phrases"], row["phrases"]) & ~np.eye(len(boxes), dtype=bool)
        low, high = (
            np.maximum(boxes[:, None, :2], boxes[None, :, :2]),
            np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]),
        )
        shared = np.prod(np.maximum(high - low, 0), axis=2)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        return (shared / (areas[:, None] + areas - shared))[same].max()

    picture = scene((RED, (0, 0, 40, 40)), (BLUE, (40, 40, 64, 64)))
    loose = detect(dataclasses.replace(detector, overlap=1.0), [picture])[0]
    strict = detect(dataclasses.replace(detector, overlap=0.1), [picture])[0]
    assert largest_overlap(strict) <= 0.1 < largest_overlap(loose)
    assert strict["boxes"][0] == loose["boxes"][0]


def test_the_caption_says_what_is_looked_for(detector):
    captions = ["Two blue boxes, a red ball", "a red ball", "a dog", "nothing here", "word " * 10_000 + "blue box"]
    rows = detect(detector, [scene((BLUE, (0, 48, 8, 56)))] * 5, captions)
    assert [row["caption_phrases"] for row in rows] == [
        ["blue box", "red ball"],
        ["red ball"],
        [],
        [],
        ["blue box"],
    ]
    assert [row["phrase_confidences"] for row in rows] == [
        [pytest.approx(1, abs=1e-4), 0],
        [0],
        [],
        [],
        [pytest.approx(1, abs=1e-4)],
    ]
    assert rows[0]["phrase_confidences"][0] == rows[0]["confidences"][0]


@pytest.mark.parametrize(
    ("size", "seen"), [((1, 1), True), ((3, 2), True), ((2000, 1500), True), ((1, 5000), False), ((65_535, 1), False)]
)
def test_pictures_of_any_size_can_be_measured(colour_detector, size, seen):
    scorer = OnnxDetector(weights=str(colour_detector()), classes=CLASSES, features=True)
    (row,) = detect(scorer, [Image.new("RGB", size, RED)])
    assert bool(row["boxes"]) == seen  # a line of one pixel is too little of a cell
    boxes = np.array(row["boxes"])
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert np.isfinite(row["features"]).all()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 255)), min_size=2, max_size=6))
def test_no_number_depends_on_the_other_pictures(colour_detector, sizes):
    scorer = OnnxDetector(weights=str(colour_detector()), classes=CLASSES, features=True)
    model = loaded(scorer)
    pictures = [scene(((shade, 0, 255 - shade), (0, 0, 9, 9)), size=(w, h)) for w, h, shade in sizes]
    together = detect(scorer, pictures, model=model)
    assert [detect(scorer, [one], model=model)[0] for one in pictures] == together
    assert detect(scorer, pictures[::-1], model=model)[::-1] == together


_models = {}


def loaded(scorer):
    if scorer not in _models:
        _models[scorer] = scorer.load("cpu")
    return _models[scorer]


def test_features_are_the_statistics_of_the_maps_and_the_classes(colour_detector):
    scorer = OnnxDetector(weights=str(colour_detector()), classes=CLASSES, features=True)
    assert scorer.columns["features"] == pa.list_(pa.float16(), 6 * 3 * 3 + 2 * 2)
    (row,) = detect(scorer, [scene((RED, (0, 0, 32, 64)))])
    features = np.array(row["features"], np.float64)
    # The first map holds the means of blocks of 8 x 8 pixels: half of them red, half grey; blue, green, red.
    np.testing.assert_allclose(features[:9], [40, 40, 167.5, 80, 80, 255, 40, 40, 87.5], rtol=1e-3)
    assert features[-4:-2] == pytest.approx([row["confidences"][0], 0], abs=1e-3)  # the surest of each class
    assert features[-2:] == pytest.approx([0.5, 0], abs=1e-3)  # half of all cells see it
    assert (
        detect(dataclasses.replace(scorer, features=False), [scene((RED, (0, 0, 32, 64)))])[0]["boxes"] == row["boxes"]
    )


def test_light_beyond_half_precision_is_cut(colour_detector, tmp_path):
    model = onnx.load(colour_detector())
    for one in model.graph.initializer:
        if one.name == "stem8.w":
            one.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(one) * np.float32(1e4), "stem8.w"))
    path = tmp_path / "bright.onnx"
    onnx.save(model, path)
    scorer = OnnxDetector(weights=str(path), classes=CLASSES, features=True, floor=1.0)
    (row,) = detect(scorer, [scene()])
    assert np.isfinite(row["features"]).all()
    assert max(row["features"]) == np.finfo(np.float16).max


def test_the_fingerprint_follows_what_changes_numbers(detector, colour_detector, tmp_path):
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(Path(detector.weights).read_bytes())
    listed = tmp_path / "classes.txt"
    listed.write_text("red ball\n\nblue box\n")
    same = dataclasses.replace(detector, weights=str(moved), classes=str(listed))
    assert fingerprint(same, "cpu") == fingerprint(detector, "cpu")
    assert pickle.loads(pickle.dumps(same)) == same
    names = tmp_path / "names.yaml"
    names.write_text("classes: {red ball: {nouns: [ball]}}")
    others = [
        dataclasses.replace(detector, **change)
        for change in (
            {"weights": str(colour_detector(trunk=5))},
            {"classes": CLASSES[::-1]},
            {"names": str(names)},
            {"features": True},
            {"floor": 0.02},
            {"overlap": 0.5},
            {"max_objects": 9},
        )
    ]
    assert len({fingerprint(one, "cpu") for one in [detector, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"weights": "nowhere.onnx"}, "'nowhere.onnx' is not a file here: give the path of an .onnx file"),
        ({"weights": __file__}, "cannot be used: is it a complete ONNX model"),
        ({"classes": None}, "tells 2 classes apart, and `classes` names 80: name them all, in the head's order"),
        ({"classes": ("one",)}, "tells 2 classes apart, and `classes` names 1"),
        ({"classes": ()}, "classes: give at least one name"),
        ({"classes": ("a", "a")}, "classes: 'a' stands there twice"),
        ({"classes": ("a", "!")}, "letters or digits in each"),
        ({"classes": "nowhere.txt"}, "classes 'nowhere.txt' cannot be read: give a text file"),
        ({"names": "nowhere.yaml"}, "list of names nowhere.yaml: No such file"),
        ({"floor": 0.0}, "floor is 0.0: give a number above 0"),
        ({"overlap": 1.5}, "overlap is 1.5: give a number above 0, and at most 1"),
        ({"max_objects": 0}, "max_objects is 0: give a whole number from 1 on"),
    ],
)
def test_settings_that_cannot_work_are_named_before_anything_is_loaded(detector, change, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        dataclasses.replace(detector, **change).check()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        ("decoded", "gives boxes that are decoded already; export it with"),
        ("raw", "gives numbers outside [0, 1] for probabilities; export it with"),
    ],
)
def test_a_head_of_the_same_shape_and_another_meaning_is_told_by_its_numbers(colour_detector, spoil, problem):
    scorer = OnnxDetector(weights=str(colour_detector(spoil=spoil)), classes=CLASSES)
    scorer.check()
    with pytest.raises(ValueError, match=re.escape(problem)):
        scorer.load("cpu")


@pytest.fixture(scope="module")
def real():
    if not (DATA / "weights" / "yolox_nano.onnx").is_file():
        pytest.skip("the real weights are not in ../shared/data beside the repository")
    return OnnxDetector(weights=str(DATA / "weights" / "yolox_nano.onnx"))


@pytest.mark.real
@pytest.mark.parametrize("name", ["yunet_n_320_320.onnx", "ch_PP-OCRv3_det_infer.onnx"])
def test_other_models_are_refused_with_their_shapes(real, name):
    with pytest.raises(ValueError, match="has no head like YOLOX's: it is") as caught:
        dataclasses.replace(real, weights=str(DATA / "weights" / name)).check()
    assert name in str(caught.value)


@pytest.mark.real
def test_a_damaged_file_is_told(real, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(Path(real.weights).read_bytes()[:-100_000])
    with pytest.raises(ValueError, match=r"cut\.onnx' cannot be used: is it a complete ONNX model"):
        dataclasses.replace(real, weights=str(path)).load("cpu")


@pytest.mark.real
def test_objects_of_real_photos_are_found(real):
    """The mean average precision that the weights have on these photos is known: .43."""
    spec = importlib.util.spec_from_file_location("detection", ROOT / "benchmarks" / "detection.py")
    detection = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(detection)
    photos = detection.read_photos(DATA / "coco-small" / "00000000.tar")
    scorer = dataclasses.replace(real, features=True)
    rows = detection.detect(scorer, photos)
    assert detection.mean_average_precision(photos, rows) == pytest.approx(0.43, abs=0.01)
    features = np.array([row["features"] for row in rows])
    assert features.shape == (248, 1696)
    assert np.isfinite(features).all()
    # A JPEG decodes to the same pixels everywhere, but the kernels for a processor differ in the last digits.
    again = detection.detect(scorer, [dataclasses.replace(photos[0], picture=copy_of(photos[0].picture))])
    assert again[0] == rows[0]


def copy_of(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Image.open(buffer).convert("RGB")
