"""Against a slow twin: one picture at a time through transformers' own processor, model and post-processing."""

import numpy as np
import pytest
import torch
from PIL import Image

from chaffinch.scoring.detecting.phrases import find_phrases, normalise
from chaffinch.scoring.detector import Detector
from chaffinch.scoring.scorer import Batch

GROUNDING = ("grounding-dino", "mm-grounding-dino")
QUERIES = ("owlvit", "owlv2", "omdet-turbo")
TOLERANCE = 1e-4
CAPTIONS = [
    "A brown dog runs along the beach with a ball in its mouth",
    "Two men. Two red HATS?   A blue car",
    "a photo of a white cat on the grass",
    "a man, a woman, a boy, a girl, a dog, a cat, a ball, a horse, a car, a street, water, a shirt, a hat, a house",
    "Ein Hund rennt am Strand entlang",
]


@pytest.fixture(scope="module")
def twin(small_detector, slow_detector):
    """(family) -> transformers' own model and processor."""
    return lambda family: slow_detector.load(small_detector(family))


@pytest.fixture(scope="module")
def captioned(photos):
    """Pairs of all shapes, more than once, so that a batch mixes canvases and has several pictures on some."""
    pictures = [*photos, *(photo.transpose(Image.Transpose.ROTATE_90) for photo in photos)]
    return list(zip(CAPTIONS * 2, pictures, strict=True))


def measure(scorer, model, pairs):
    prepared = [scorer.prepare(picture, model) for _, picture in pairs]
    columns = scorer.score(Batch([""] * len(pairs), [caption for caption, _ in pairs], prepared), model)
    return [{name: values[row].as_py() for name, values in columns.items()} for row in range(len(pairs))]


def canvas_of(scorer, model, picture):
    return model.canvases.find(scorer.prepare(picture, model))


@pytest.mark.parametrize("family", GROUNDING)
def test_captions_are_grounded_as_transformers_does(family, small_detector, slow_detector, twin, captioned):
    scorer = Detector(str(small_detector(family)), floor=0.1)
    model = scorer.load("cpu")
    rows = measure(scorer, model, captioned)
    texts = [normalise(caption).rstrip(" .") + "." for caption, _ in captioned]
    pads = [canvas_of(scorer, model, picture) for _, picture in captioned]
    assert len(set(pads)) > 4
    expected = slow_detector.look(family, twin(family), captioned, texts, 0.1, pads)
    for row, objects in zip(rows, expected, strict=True):
        slow_detector.assert_same(row, objects)
    assert len({phrase for row in rows for phrase in row["phrases"]}) > 3  # or any order would do
    assert np.ptp([box for row in rows for box in row["boxes"]]) > 0.5


@pytest.mark.parametrize("family", GROUNDING)
def test_a_picture_that_fills_its_canvas_is_seen_as_by_transformers_alone(
    family, small_detector, slow_detector, twin, photos
):
    scorer = Detector(str(small_detector(family)), floor=0.1)
    model = scorer.load("cpu")
    pairs = list(zip(CAPTIONS, [photos[0], photos[1], photos[4]], strict=False))
    assert all(canvas_of(scorer, model, photo) == (96, 96 * photo.width // photo.height) for _, photo in pairs)
    texts = [normalise(caption).rstrip(" .") + "." for caption, _ in pairs]
    expected = slow_detector.look(family, twin(family), pairs, texts, 0.1)
    for row, objects in zip(measure(scorer, model, pairs), expected, strict=True):
        slow_detector.assert_same(row, objects)


def test_repeated_boxes_of_omdet_are_thinned_out(small_detector, captioned):
    """Or the comparison below would not see whether they are."""
    scorer = Detector(str(small_detector("omdet-turbo")), floor=0.0)
    rows = measure(scorer, scorer.load("cpu"), captioned)
    counts = [len(row["boxes"]) for row in rows]
    assert 0 < min(counts) <= 20, counts  # of 30 candidates


@pytest.mark.parametrize("family", QUERIES)
def test_phrases_are_found_as_transformers_does(family, small_detector, slow_detector, twin, captioned):
    scorer = Detector(str(small_detector(family)), floor=0.1)
    model = scorer.load("cpu")
    rows = measure(scorer, model, captioned)
    texts = [[phrase.text for phrase in find_phrases(normalise(caption))] for caption, _ in captioned]
    assert [row["caption_phrases"] for row in rows] == texts
    expected = slow_detector.look(family, twin(family), captioned, texts, 0.1)
    for row, objects in zip(rows, expected, strict=True):
        slow_detector.assert_same(row, objects)
    assert len({phrase for row in rows for phrase in row["phrases"]}) > 3
    assert np.ptp([box for row in rows for box in row["boxes"]]) > 0.5


@pytest.mark.parametrize("family", [*GROUNDING, *QUERIES])
def test_a_vocabulary_is_looked_for_as_transformers_does(family, small_detector, slow_detector, twin, captioned):
    vocabulary = ("dog", "red ball", "man", "blue car", "tree")
    scorer = Detector(str(small_detector(family)), prompt=vocabulary, floor=0.1)
    model = scorer.load("cpu")
    measure(scorer, model, captioned[:1])  # the text side is remembered from here on
    rows = measure(scorer, model, captioned)
    pads = [canvas_of(scorer, model, picture) for _, picture in captioned] if family in GROUNDING else None
    expected = slow_detector.look(family, twin(family), captioned, [list(vocabulary)] * len(captioned), 0.1, pads)
    for row, objects in zip(rows, expected, strict=True):
        assert set(row["phrases"]) <= set(vocabulary)
        if family in GROUNDING:  # transformers names the tokens, Chaffinch the entry that has the surest of them
            objects = [(confidence, box, None) for confidence, box, _ in objects]
            row = row | {"phrases": [None] * len(row["boxes"])}
        slow_detector.assert_same(row, objects)
    assert len({phrase for row in rows for phrase in row["phrases"]}) > 1


@pytest.mark.parametrize("family", [*GROUNDING, *QUERIES])
def test_of_a_vocabulary_the_caption_may_mention_some(family, small_detector, photos):
    caption = "A puppy and two RED balls in a car"
    vocabulary = ("red ball", "man", "dog", "tree")
    scorer = Detector(str(small_detector(family)), prompt=vocabulary, floor=0.01, max_objects=1000)
    row, other = measure(scorer, scorer.load("cpu"), [(caption, photos[0]), ("nothing", photos[0])])
    assert row["caption_phrases"] == ["dog", "red ball"]
    assert other["caption_phrases"] == other["phrase_confidences"] == other["grounded"] == []
    for phrase, confidence in zip(row["caption_phrases"], row["phrase_confidences"], strict=True):
        named = [sure for sure, name in zip(row["confidences"], row["phrases"], strict=True) if name == phrase]
        # A box may be surer of another entry, or of the full stop after this one.
        assert confidence > 0
        if family == "omdet-turbo":
            assert confidence == max(named)
        elif family in QUERIES:
            assert confidence >= max(named, default=0)


@pytest.mark.parametrize("family", GROUNDING)
def test_an_entry_of_the_vocabulary_is_named_by_its_surest_token(family, small_detector, slow_detector, twin, photos):
    vocabulary = ("dog", "red ball", "blue car")
    scorer = Detector(str(small_detector(family)), prompt=vocabulary, floor=0.1)
    row = measure(scorer, scorer.load("cpu"), [("", photos[0])])[0]
    network, processor = twin(family)
    inputs = processor(images=photos[0], text=list(vocabulary), return_tensors="pt")
    with torch.no_grad():
        logits = network(**inputs).logits[0]  # (q, 256)
    owner = [None]  # of each token, by counting full stops
    for token in processor.tokenizer.convert_ids_to_tokens(inputs.input_ids[0][1:]):
        number = sum(one == "stop" for one in owner)
        owner.append("stop" if token == "." else number if number < len(vocabulary) else None)
    named = [place for place, one in enumerate(owner) if isinstance(one, int)]
    order = logits.max(dim=1).values.argsort(descending=True, stable=True)
    best = [vocabulary[owner[named[int(logits[query, named].argmax())]]] for query in order]
    assert row["phrases"] == best[: len(row["phrases"])]
    assert len(set(best)) > 1


@pytest.mark.parametrize("family", [*GROUNDING, *QUERIES])
def test_a_phrase_is_as_sure_as_the_best_box_for_it(family, small_detector, slow_detector, twin, photos):
    caption = "a brown dog and a small ball, a brown dog"
    scorer = Detector(str(small_detector(family)), max_objects=3, floor=0.3, text_threshold=0.6)
    row = measure(scorer, scorer.load("cpu"), [(caption, photos[0])])[0]
    assert row["caption_phrases"] == ["brown dog", "small ball"]
    network, processor = twin(family)
    text = caption + "." if family in GROUNDING else row["caption_phrases"]
    inputs = processor(images=photos[0], text=text, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    if family in GROUNDING:
        best = outputs.logits[0].sigmoid().amax(dim=0)
        tokens = processor.tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
        places = [
            [place for place, token in enumerate(tokens) if token in phrase.split()]
            for phrase in row["caption_phrases"]
        ]
        expected = [float(best[where].max()) for where in places]
        assert [len(where) for where in places] == [4, 2]
    else:
        logits = outputs.decoder_class_logits if family == "omdet-turbo" else outputs.logits
        expected = logits[0].sigmoid().amax(dim=0).tolist()
    np.testing.assert_allclose(row["phrase_confidences"], expected, rtol=0, atol=TOLERANCE)
    assert row["grounded"] == [confidence > 0.6 for confidence in expected]
    assert len(row["boxes"]) == 3
