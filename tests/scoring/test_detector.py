import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from chaffinch.scoring.detector import Detector
from chaffinch.scoring.scorer import Batch

FAMILIES = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2", "omdet-turbo")
QUERIES = FAMILIES[2:]
CAPTIONS = [
    "A brown dog runs along the beach with a ball in its mouth",
    "Ein Hund rennt am Strand entlang",
    "IMG_0031.JPG",
    "word " * 300,
    "一只狗在海滩上奔跑",
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def scorer(family, small_detector):
    return Detector(str(small_detector(family)))


@pytest.fixture(scope="module")
def model(scorer):
    return scorer.load("cpu")


def measure(scorer, model, captions, pictures):
    prepared = [scorer.prepare(picture, model) for picture in pictures]
    columns = scorer.score(Batch([""] * len(captions), captions, prepared), model)
    assert {name: values.type for name, values in columns.items()} == scorer.columns
    for values in columns.values():
        values.validate(full=True)
    return [{name: values[row].as_py() for name, values in columns.items()} for row in range(len(captions))]


def assert_close(one, other, tolerance):
    """Equal lists of objects, apart from the order of those that are equally sure."""
    for name in ("caption_phrases", "grounded"):
        assert one.get(name) == other.get(name)
    np.testing.assert_allclose(one["confidences"], other["confidences"], rtol=0, atol=tolerance)
    left = list(zip(other["confidences"], other["boxes"], other["phrases"], strict=True))
    for confidence, box, phrase in zip(one["confidences"], one["boxes"], one["phrases"], strict=True):
        near = [
            candidate
            for candidate in left
            if abs(candidate[0] - confidence) <= tolerance
            and np.abs(np.subtract(candidate[1], box)).max() <= tolerance
            and candidate[2] == phrase
        ]
        assert near, (confidence, box, phrase)
        left.remove(near[0])


def test_columns_are_the_contracts():
    columns = Detector("a/b").columns
    assert dict(columns) == {
        "boxes": pa.list_(pa.list_(pa.float32(), 4)),
        "confidences": pa.list_(pa.float32()),
        "phrases": pa.list_(pa.string()),
        "caption_phrases": pa.list_(pa.string()),
        "phrase_confidences": pa.list_(pa.float32()),
        "grounded": pa.list_(pa.bool_()),
    }
    assert Detector("a/b", prompt=("dog",)).columns == columns


def test_objects_are_in_order_above_the_floor_and_inside_the_picture(scorer, model, photos):
    rows = measure(scorer, model, CAPTIONS, photos)
    assert max(len(row["boxes"]) for row in rows) > 10
    for row in rows:
        assert len(row["boxes"]) == len(row["confidences"]) == len(row["phrases"]) <= scorer.max_objects
        assert row["confidences"] == sorted(row["confidences"], reverse=True)
        assert all(scorer.floor < confidence <= 1 for confidence in row["confidences"])
        boxes = np.array(row["boxes"]).reshape(-1, 4)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, :2] <= boxes[:, 2:]).all()
        assert len(row["caption_phrases"]) == len(row["phrase_confidences"]) == len(row["grounded"])


def test_alone_and_in_any_batch_the_numbers_are_the_same(scorer, model, photos):
    """Beside another caption's length and another picture's shape, on which padding would depend."""
    together = measure(scorer, model, CAPTIONS * 2, [*photos, *photos[::-1]])
    for row, (caption, photo) in enumerate(zip(CAPTIONS * 2, [*photos, *photos[::-1]], strict=True)):
        (alone,) = measure(scorer, model, [caption], [photo])
        assert_close(alone, together[row], 1e-5)
    backwards = measure(scorer, model, CAPTIONS[::-1], photos[::-1])
    for row, other in zip(together[: len(CAPTIONS)], backwards[::-1], strict=True):
        assert_close(row, other, 1e-5)


def test_the_same_batch_gives_the_same_bytes(scorer, model, photos):
    assert measure(scorer, model, CAPTIONS, photos) == measure(scorer, model, CAPTIONS, photos)


def test_bfloat16_differs_a_little(family, scorer, model, photos):
    rough_scorer = dataclasses.replace(scorer, precision="bfloat16")
    rough_model = rough_scorer.load("cpu")
    exact = measure(scorer, model, CAPTIONS[:1], photos[:1])[0]
    rough = measure(rough_scorer, rough_model, CAPTIONS[:1], photos[:1])[0]
    # Random weights let a query jump to another place; how sure the best ones are does not.
    assert 0 < abs(exact["confidences"][0] - rough["confidences"][0]) < 0.1


def test_the_floor_and_the_most_only_cut(scorer, model, photos):
    whole = measure(scorer, model, CAPTIONS, photos)
    median = float(np.median([confidence for row in whole for confidence in row["confidences"]]))
    fewer = dataclasses.replace(scorer, floor=median, max_objects=7)
    assert fewer != scorer
    cut = measure(fewer, fewer.load("cpu"), CAPTIONS, photos)
    for row, rest in zip(whole, cut, strict=True):
        kept = min(7, sum(confidence > median for confidence in row["confidences"]))
        for name in ("boxes", "confidences", "phrases"):
            assert rest[name] == row[name][:kept]
        assert rest["phrase_confidences"] == row["phrase_confidences"]


def test_a_caption_of_ten_thousand_words_takes_no_more_than_its_beginning(scorer, model, photos):
    long = "a brown dog and a ball on the green grass " * 1_000
    assert len(long.split()) == 10_000
    first = measure(scorer, model, [long], photos[:1])
    assert first == measure(scorer, model, [long[:2_000]], photos[:1])
    assert first[0]["caption_phrases"] == ["brown dog", "ball", "green grass"]
    measure(scorer, model, ["x" * 1_000_000, "x, " * 300_000], photos[:2])


def test_a_caption_without_phrases_has_no_phrases(family, scorer, model, photos):
    for captions in (["..."], ["IMG_0031.JPG", "12"]):
        for row in measure(scorer, model, captions, photos[: len(captions)]):
            assert row["caption_phrases"] == row["phrase_confidences"] == row["grounded"] == []
            assert not (family in QUERIES and row["boxes"])


def test_pictures_of_one_pixel_are_pictures(scorer, model):
    (row,) = measure(scorer, model, CAPTIONS[:1], [Image.new("RGB", (1, 1), "red")])
    assert np.isfinite(row["confidences"]).all()


def test_the_text_side_of_a_vocabulary_is_computed_once(family, small_detector, photos):
    vocabulary = tuple(["dog", "cat", "ball", "man", "woman", "tree"])
    scorer = Detector(str(small_detector(family)), prompt=vocabulary)
    runs = []
    model = scorer.load("cpu")
    network = model.detector._network
    side = {
        "owlvit": lambda: network.owlvit.text_model,
        "owlv2": lambda: network.owlv2.text_model,
        "omdet-turbo": lambda: network.language_backbone.model,
    }.get(family, lambda: network.model.text_backbone.backbone)()
    side.register_forward_hook(lambda *_: runs.append(1))
    first = measure(scorer, model, CAPTIONS, photos)
    assert len(runs) <= 1  # Grounding DINO's when the first batch comes, the others' while loading
    measure(scorer, model, CAPTIONS[:3], photos[:3])
    again = measure(scorer, model, ["anything else"] * 5, photos)
    assert len(runs) <= 1
    for row, other in zip(first, again, strict=True):
        assert all(row[name] == other[name] for name in ("boxes", "confidences", "phrases"))
        assert set(row["phrases"]) <= set(vocabulary)


@pytest.mark.parametrize("family", ["grounding-dino"], indirect=True)
def test_a_vocabulary_that_a_model_cannot_read_is_refused(family, small_detector):
    long = tuple(f"thing {number}" for number in range(200))
    with pytest.raises(ValueError, match=r"vocabulary of \d+ tokens, and the model reads 256: shorten it, or use OWL"):
        Detector(str(small_detector(family)), prompt=long).load("cpu")
    with pytest.raises(ValueError, match=r"prompt 'u.s. flag' holds a full stop or a question mark"):
        Detector(str(small_detector(family)), prompt=("U.S. flag",)).load("cpu")


@pytest.mark.parametrize("family", ["owlv2"], indirect=True)
def test_models_that_take_phrases_take_any_number(family, small_detector, photos):
    vocabulary = tuple(f"thing {number}" for number in range(200))
    scorer = Detector(str(small_detector(family)), prompt=vocabulary)
    (row,) = measure(scorer, scorer.load("cpu"), [""], photos[:1])
    assert len(set(row["phrases"])) > 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_numbers_are_nearly_the_same(family, small_detector, scorer, model, photos):
    expected = measure(scorer, model, CAPTIONS, photos)
    for settings, tolerance in (({"precision": "float32"}, 1e-3), ({"precision": "float32", "compile": True}, 1e-3)):
        other = dataclasses.replace(scorer, **settings)
        measured = measure(other, other.load("cuda"), CAPTIONS, photos)
        for row, seen in zip(expected, measured, strict=True):
            count = min(3, len(row["confidences"]))
            np.testing.assert_allclose(seen["confidences"][:count], row["confidences"][:count], rtol=0, atol=tolerance)
    rough = measure(scorer, scorer.load("cuda"), CAPTIONS, photos)
    assert sum(len(row["boxes"]) for row in rough) > 10
