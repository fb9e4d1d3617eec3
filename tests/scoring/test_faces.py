"""Faces: planted light for a network that takes light for faces, against plain loops; and the real YuNet on photos."""

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from chaffinch.scoring.faces import Faces, cover
from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import Batch

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "yunet_n_320_320.onnx"
NUMBERS = ("face_count", "largest_face", "face_area")


def measure(scorer, model, *pictures):
    prepared = [scorer.prepare(picture, model) for picture in pictures]
    return dict(scorer.score(Batch([""] * len(pictures), [""] * len(pictures), prepared), model))


@pytest.fixture(scope="module")
def light(face_detector):
    scorer = Faces(weights=str(face_detector()))
    return scorer, scorer.load("cpu")


def dark(*boxes, size=(64, 64), level=255):
    picture = Image.new("RGB", size)
    for box in boxes:
        picture.paste((level,) * 3, box)
    return picture


def test_a_planted_face_is_measured(light):
    """16 x 16 white pixels are one cell of stride 16, and the four of stride 8 inside, which overlap it too little."""
    columns = measure(*light, dark((16, 32, 32, 48)), dark())
    assert columns["face_count"].tolist() == [5, 0]
    assert columns["largest_face"].tolist() == [1 / 16, 0]
    assert columns["face_area"].tolist() == [1 / 16, 0]
    boxes, none = columns["boxes"].to_pylist()
    assert [0.25, 0.5, 0.5, 0.75] in boxes
    assert [0.25, 0.5, 0.375, 0.625] in boxes
    np.testing.assert_allclose(columns["confidences"].to_pylist()[0], [1] * 5, rtol=1e-6)
    assert columns["phrases"].to_pylist() == [["face"] * 5, []]
    assert none == []


def test_boxes_are_shares_of_the_picture_and_grey_beside_it_holds_none(light):
    """Scaled by half, the picture fills the canvas's upper half; the grey below it is light enough for the floor."""
    columns = measure(*light, dark((64, 0, 128, 64), size=(128, 64)))
    boxes = np.array(columns["boxes"].to_pylist()[0])
    assert len(boxes)
    assert boxes[:, 0].min() == 0.5
    assert (boxes[:, 3] <= 1).all()
    assert columns["face_area"][0] == 0.5


def test_faint_faces_are_listed_but_do_not_count(face_detector):
    picture = dark((0, 0, 8, 8), level=128)
    shy, bold = Faces(weights=str(face_detector())), Faces(weights=str(face_detector()), confidence=0.5)
    model = shy.load("cpu")
    first, second = measure(shy, model, picture), measure(bold, model, picture)
    assert first["confidences"].to_pylist()[0] == pytest.approx([128 / 255])
    assert first["boxes"] == second["boxes"]
    assert [first[name][0] for name in NUMBERS] == [0, 0, 0]
    assert [second[name][0] for name in NUMBERS] == [1, 1 / 64, 1 / 64]


def faces_by_hand(grey, floor, overlap, most):
    """Boxes and confidences from (64, 64) levels: every cell of three strides, then greedy suppression."""
    cells = []
    for stride in (8, 16, 32):
        for row in range(0, 64, stride):
            for column in range(0, 64, stride):
                confidence = grey[row : row + stride, column : column + stride].mean() / 255
                cells.append((confidence, (column / 64, row / 64, (column + stride) / 64, (row + stride) / 64)))
    kept = []
    for confidence, box in sorted(cells, reverse=True):
        if confidence >= floor and all(overlap_of(box, other) <= overlap for _, other in kept):
            kept.append((confidence, box))
    return kept[:most]


def overlap_of(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("floor", "overlap", "most"), [(0.3, 0.3, 100), (0.05, 0.1, 20), (0.5, 0.9, 100)])
def test_faces_agree_with_plain_loops(face_detector, seed, floor, overlap, most):
    generator = np.random.default_rng(seed)
    levels = np.kron(generator.integers(0, 200, (8, 8)), np.ones((8, 8))) + generator.integers(0, 56, (64, 64))
    picture = Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    scorer = Faces(weights=str(face_detector()), floor=floor, overlap=overlap, max_faces=most)
    columns = measure(scorer, scorer.load("cpu"), picture)
    expected = faces_by_hand(levels, floor, overlap, most)
    np.testing.assert_allclose(columns["confidences"].to_pylist()[0], [one for one, _ in expected], rtol=1e-5)
    np.testing.assert_array_equal(columns["boxes"].to_pylist()[0], [box for _, box in expected])
    sure = [box for one, box in expected if one >= 0.7]
    sizes = [(right - left) * (bottom - top) for left, top, right, bottom in sure]
    assert [columns[name][0] for name in NUMBERS] == [len(sure), max(sizes, default=0), cover(np.array(sure))]


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.int64, st.tuples(st.integers(0, 5), st.just(4)), elements=st.integers(0, 10)))
def test_cover_counts_every_place_once(corners):
    boxes = np.concatenate([np.sort(corners[:, [0, 2]], axis=1), np.sort(corners[:, [1, 3]], axis=1)], axis=1)
    boxes = boxes[:, [0, 2, 1, 3]]
    painted = np.zeros((10, 10), bool)
    for left, top, right, bottom in boxes:
        painted[top:bottom, left:right] = True
    assert cover(boxes / 10) == pytest.approx(painted.mean())


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2), (65, 63)])
def test_pictures_of_any_size_are_measured(light, size):
    columns = measure(*light, Image.new("RGB", size), Image.new("RGB", size, "white"))
    assert columns["face_count"][0] == 0
    assert 0 <= columns["face_area"].max() <= 1
    assert np.isfinite(columns["largest_face"]).all()


def test_one_in_a_batch_equals_alone(light, photos):
    together = measure(*light, *photos)
    for index, photo in enumerate(photos):
        for name, values in measure(*light, photo).items():
            assert str(values[0]) == str(together[name][index]), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"floor": 0}, "floor is 0: give a number above 0, and at most 1"),
        ({"confidence": 1.1}, "confidence is 1.1: give a number"),
        ({"overlap": math.nan}, "overlap is nan: give a number"),
        ({"floor": 0.5, "confidence": 0.4}, "confidence is 0.4, below the floor of 0.5: lower the floor"),
        ({"max_faces": 0}, "max_faces is 0: give a whole number from 1 on"),
    ],
)
def test_settings_that_cannot_be_are_named(face_detector, wrong, message):
    with pytest.raises(ValueError, match=message):
        Faces(weights=str(face_detector()), **wrong).check()


def test_other_models_and_broken_files_are_named_with_the_remedy(
    text_detector, face_detector, colour_detector, tmp_path
):
    remedy = "is no YuNet with raw outputs: name a file such as yunet_n_320_320.onnx"
    for other in (text_detector(), colour_detector(), face_detector("box")):
        with pytest.raises(ValueError, match=remedy):
            Faces(weights=str(other)).check()
    with pytest.raises(ValueError, match=rf"{remedy}.*it has no output bbox_8 float32 \[1, 64, 4\]"):
        Faces(weights=str(face_detector("box"))).check()
    raw = Faces(weights=str(face_detector("raw")))
    raw.check()
    with pytest.raises(ValueError, match=rf"{remedy}.*outside \[0, 1\]"):
        raw.load("cpu")
    half = tmp_path / "half.onnx"
    half.write_bytes(face_detector().read_bytes()[:200])
    for use in (Faces.check, lambda scorer: scorer.load("cpu")):
        with pytest.raises(ValueError, match="is not a file here: give the path"):
            use(Faces(weights="missing.onnx"))
        with pytest.raises(ValueError, match=r"half\.onnx' cannot be used: is it a complete ONNX model"):
            use(Faces(weights=str(half)))


def test_moving_the_file_changes_no_fingerprint(face_detector, tmp_path):
    copy = tmp_path / "elsewhere.onnx"
    copy.write_bytes(face_detector().read_bytes())
    assert Faces(weights=str(copy)).identity() == Faces(weights=str(face_detector())).identity()
    assert Faces(weights=str(copy)).identity() != Faces(weights=str(copy), overlap=0.5).identity()


real = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (WEIGHTS.is_file() and (DATA / "coco-small").is_dir()),
        reason=f"needs ../shared/data/weights/{WEIGHTS.name} and ../shared/data/coco-small",
    ),
]


@pytest.fixture(scope="module")
def yunet():
    scorer = Faces(weights=str(WEIGHTS))
    return scorer, scorer.load("cpu")


@pytest.fixture(scope="module")
def people():
    """COCO's photos with boxes: (picture, boxes of persons) each."""
    photos = []
    with tarfile.open(DATA / "coco-small" / "00000000.tar") as tar:
        for name in sorted(name for name in tar.getnames() if name.endswith(".json")):
            boxes = json.load(tar.extractfile(name))["boxes"]
            if boxes:
                picture = decode(tar.extractfile(name.replace(".json", ".jpg")).read())
                photos.append((picture, [one["box"] for one in boxes if one["category"] == "person"]))
    return photos


def sure_boxes(columns, confidence=0.7):
    rows = zip(columns["boxes"].to_pylist(), columns["confidences"].to_pylist(), strict=True)
    return [[box for box, one in zip(*row, strict=True) if one >= confidence] for row in rows]


def test_faces_are_where_people_are(yunet, people):
    """COCO's boxes leave out members of crowds, and people seen from behind have no face."""
    found = sure_boxes(measure(*yunet, *[picture for picture, _ in people]))
    with_people = [bool(boxes) for boxes, (_, persons) in zip(found, people, strict=True) if persons]
    without = [bool(boxes) for boxes, (_, persons) in zip(found, people, strict=True) if not persons]
    assert len(with_people) > 30
    assert len(without) > 30
    assert np.mean(with_people) > 0.5
    assert np.mean(without) < 0.1
    inside = [
        any(p[0] <= (box[0] + box[2]) / 2 <= p[2] and p[1] <= (box[1] + box[3]) / 2 <= p[3] for p in persons)
        for boxes, (_, persons) in zip(found, people, strict=True)
        for box in boxes
        if persons
    ]
    assert np.mean(inside) > 0.7


test_faces_are_where_people_are.pytestmark = real


def test_a_face_moves_with_its_picture(yunet, people):
    """Mirrored, and pasted at a known place of a large empty picture, the surest faces are where they should be."""
    pictures = [picture for picture, persons in people if persons]
    found = zip(pictures, sure_boxes(measure(*yunet, *pictures), 0.85), strict=True)
    chosen, surest = zip(*((picture, boxes[0]) for picture, boxes in found if boxes), strict=True)
    assert len(chosen) >= 10
    for (left, top, right, bottom), mirrored in zip(
        surest, sure_boxes(measure(*yunet, *map(ImageOps.mirror, chosen)), 0.5), strict=True
    ):
        assert max(overlap_of((1 - right, top, 1 - left, bottom), box) for box in mirrored) > 0.5
    pasted = 0
    for (left, top, right, bottom), picture in zip(surest, chosen, strict=True):
        if (right - left) * 300 * 0.64 > 20:  # large enough, on the network's canvas, to be found again
            canvas = Image.new("RGB", (500, 400), (120, 130, 120))
            canvas.paste(picture.resize((300, 240)), (150, 100))
            expected = 0.3 + 0.6 * left, 0.25 + 0.6 * top, 0.3 + 0.6 * right, 0.25 + 0.6 * bottom
            (boxes,) = sure_boxes(measure(*yunet, canvas), 0.3)
            assert max(overlap_of(expected, box) for box in boxes) > 0.5
            pasted += 1
    assert pasted >= 3


test_a_face_moves_with_its_picture.pytestmark = real


def test_text_and_blanks_have_no_face(yunet):
    columns = measure(*yunet, Image.new("RGB", (300, 200), "white"), Image.effect_noise((300, 200), 60).convert("RGB"))
    assert columns["face_count"].tolist() == [0, 0]


test_text_and_blanks_have_no_face.pytestmark = real
