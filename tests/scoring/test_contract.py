"""What holds of every scorer, whoever adds it: every file of the folder is found and tried."""

import dataclasses
import importlib
import pickle
import pkgutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import chaffinch.scoring
from chaffinch.scoring.scorer import Batch, Scorer, fingerprint

# Settings to try a kind with, where some have no default; {checkpoint} stands for a small model's file of weights,
# {corpus} for one of captions, {captioned} for one of captioned pictures, {colour_detector} for a light detector's,
# {text_detector} and {face_detector} likewise, {zero_shot_detector} for a small zero-shot detector's folder, {head}
# for a linear head's weights, {trusted_head} for another's, {light_heads} and {better_light_heads} for light heads,
# {aligned} for a folder of two CLIPs of one lineage and trusted pairs.
SETTINGS: dict[str, dict] = {
    "caption_words": {"words": str(Path(__file__).parents[2] / "examples" / "nouns.txt")},
    "clip": {"model": "ViT-S-32-alt", "pretrained": "{checkpoint}", "embeddings": True},
    "detector": {"checkpoint": "{zero_shot_detector}", "max_objects": 5},
    "onnx_detector": {"weights": "{colour_detector}", "classes": ("red ball", "blue box"), "features": True},
    "faces": {"weights": "{face_detector}", "confidence": 0.5},
    "text_area": {"weights": "{text_detector}"},
    "neighbours": {"embedding": "clip.image_embedding"},
    "neighbour_captions": {
        "embedding": "clip.image_embedding",
        "reference": "{captioned}",
        "captions_key": "caption",
        "neighbours": 2,
    },
    "light_clip": {"features": "yolox.features", "weights": "{light_heads}"},
    "mimic": {
        "model": "chaffinch-tiny",
        "pretrained": "{aligned}/first.pt",
        "reference": "{aligned}/better.pt",
        "negatives": "{aligned}/trusted",
        "cosine": True,
    },
    "mimic_light": {
        "features": "yolox.features",
        "weights": "{light_heads}",
        "reference": "{better_light_heads}",
        "cosine": True,
    },
    "perplexity": {"corpus": "{corpus}"},
    "linear_head": {"embedding": "clip.image_embedding", "weights": "{head}"},
    "mimic_head": {
        "embedding": "clip.image_embedding",
        "label": "metadata.label",
        "weights": "{head}",
        "reference": "{trusted_head}",
    },
    "prompt_pair": {"embedding": "wide.image_embedding", "model": "ViT-S-32-alt", "pretrained": "{checkpoint}"},
}

# By how much a number may differ between a sample alone and in a batch; float16 columns are as coarse as 5e-4.
TOLERANCES: dict[tuple[str, str], float] = {
    ("clip", "similarity"): 1e-5,
    ("clip", "image_embedding"): 5e-4,
    ("clip", "caption_embedding"): 5e-4,
    ("light_clip", "similarity"): 1e-5,
    ("mimic", "mimic_score"): 1e-5,
    ("mimic", "mimic_cosine"): 1e-5,
    ("mimic", "loss"): 1e-5,
    ("mimic", "similarity"): 1e-5,
    ("mimic", "reference_loss"): 1e-5,
    ("mimic", "reference_similarity"): 1e-5,
    ("mimic", "excess_loss"): 1e-5,
    ("mimic_light", "mimic_score"): 1e-5,
    ("mimic_light", "mimic_cosine"): 1e-5,
    ("mimic_light", "loss"): 1e-5,
    ("mimic_light", "similarity"): 1e-5,
    ("mimic_light", "reference_loss"): 1e-5,
    ("mimic_light", "reference_similarity"): 1e-5,
    ("mimic_light", "excess_loss"): 1e-5,
    ("linear_head", "score"): 1e-6,
    ("prompt_pair", "probability"): 1e-6,
    ("mimic_head", "mimic_score"): 1e-6,
    ("mimic_head", "mimic_cosine"): 1e-6,
    ("mimic_head", "loss"): 1e-6,
    ("mimic_head", "reference_loss"): 1e-6,
    ("mimic_head", "excess_loss"): 1e-6,
    ("detector", "boxes"): 1e-5,
    ("detector", "confidences"): 1e-5,
    ("detector", "phrase_confidences"): 1e-5,
}

WIDTHS = {"clip.image_embedding": 3, "wide.image_embedding": 256, "yolox.features": 6}
"""Vectors that scorers read, and how long they are here."""

CAPTIONS = [
    "A brown dog runs along the beach with a ball in its mouth",
    "Ein Hund rennt am Strand entlang",
    "IMG_0031.JPG",
    "word " * 300,
    "一只狗在海滩上奔跑",
]


def find_scorers() -> list[type[Scorer]]:
    found = []
    for module in pkgutil.iter_modules(chaffinch.scoring.__path__):
        if not module.ispkg:
            loaded = importlib.import_module(f"chaffinch.scoring.{module.name}")
            classes = [value for value in vars(loaded).values() if isinstance(value, type)]
            found += [value for value in classes if issubclass(value, Scorer) and value.__module__ == loaded.__name__]
    return [kind for kind in found if kind is not Scorer]


@pytest.fixture(scope="module", params=find_scorers(), ids=lambda kind: kind.__name__)
def scorer(
    request,
    checkpoint,
    aligned,
    corpus,
    captioned,
    colour_detector,
    text_detector,
    face_detector,
    small_detector,
    head,
    trusted_head,
    light_heads,
    better_light_heads,
) -> Scorer:
    kind = request.param.__module__.rpartition(".")[2]
    required = [field.name for field in dataclasses.fields(request.param) if field.default is dataclasses.MISSING]
    settings = SETTINGS.get(kind, {})
    assert set(required) <= set(settings), f"{kind} needs settings to be tried with: add them to SETTINGS"
    files = {
        "checkpoint": checkpoint,
        "aligned": aligned,
        "corpus": corpus,
        "captioned": captioned,
        "head": head,
        "trusted_head": trusted_head,
        "light_heads": light_heads,
        "better_light_heads": better_light_heads,
        "colour_detector": colour_detector(),
        "text_detector": text_detector(),
        "face_detector": face_detector(),
        "zero_shot_detector": small_detector("grounding-dino"),
    }
    return request.param(
        **{name: value.format(**files) if isinstance(value, str) else value for name, value in settings.items()}
    )


@pytest.fixture(scope="module")
def model(scorer):
    if scorer.whole_pool:
        pytest.skip("it measures pools, not batches")
    return scorer.load("cpu")


def measure(scorer: Scorer, model, captions, pictures) -> dict:
    prepared = [scorer.prepare(picture, model) for picture in pictures] if scorer.reads_pictures else []
    uids = [f"{index:032x}" for index in range(len(captions))]
    columns = {name: column_read(name, captions, pictures) for name in scorer.reads}
    return dict(scorer.score(Batch(uids, captions, prepared, columns), model))


def column_read(name: str, captions, pictures) -> pa.Array:
    """What another scorer would have measured; mean colours do for an embedding."""
    if name == "captions.text":
        return pa.array(captions, pa.string())
    if name == "metadata.label":
        return pa.array([len(caption) % 2 for caption in captions], pa.int64())
    assert name in WIDTHS
    colours = [np.asarray(picture).mean(axis=(0, 1)) for picture in pictures]
    width = WIDTHS[name]
    rows = np.resize(np.array(colours, np.float16).T, (width, len(pictures))).T  # each colour again and again
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)


def arrow(values, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def numbers(values) -> object:
    """Nested lists of plain values, to compare."""
    return values.to_pylist() if isinstance(values, pa.Array) else values.tolist()


def flat(values) -> list[float]:
    """The numbers of nested lists, with the length of each list before its own."""
    if not isinstance(values, list):
        return [values]
    return [len(values), *(number for value in values for number in flat(value))]


def test_the_folder_has_scorers():
    assert {"Captions", "Pictures", "Clip"} <= {kind.__name__ for kind in find_scorers()}


def test_settings_are_frozen_compare_and_pickle_small(scorer):
    assert pickle.loads(pickle.dumps(scorer)) == scorer
    assert hash(pickle.loads(pickle.dumps(scorer))) == hash(scorer)
    assert len(pickle.dumps(scorer)) < 600
    for field in [*dataclasses.fields(scorer), None]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(scorer, field.name if field else "anything", 1)


def test_the_docstring_describes_every_column(scorer):
    assert type(scorer).__doc__.startswith("Columns:")
    for name in scorer.columns:
        assert name in type(scorer).__doc__, name


def test_the_settings_pass_their_own_check_and_have_a_fingerprint(scorer):
    scorer.check()
    name = fingerprint(scorer, "cpu")
    assert len(name) == 8
    assert name == fingerprint(pickle.loads(pickle.dumps(scorer)), "cpu")
    assert (fingerprint(scorer, "cuda") != name) == scorer.uses_device


def test_columns_have_the_promised_names_types_and_lengths(scorer, model, photos):
    for n in (len(CAPTIONS), 1):
        columns = measure(scorer, model, CAPTIONS[:n], photos[:n])
        assert list(columns) == list(scorer.columns)
        for name, kind in scorer.columns.items():
            values = columns[name]
            assert len(values) == n, name
            assert (values.type if isinstance(values, pa.Array) else pa.from_numpy_dtype(values.dtype)) == kind, name


def test_no_samples_give_empty_columns(scorer, model):
    columns = measure(scorer, model, [], [])
    for name, kind in scorer.columns.items():
        values = arrow(columns[name], kind)
        assert (len(values), values.type) == (0, kind)


def test_scores_do_not_depend_on_the_neighbours(scorer, model, photos):
    together = measure(scorer, model, CAPTIONS, photos)
    again = measure(scorer, model, CAPTIONS, photos)
    backwards = measure(scorer, model, CAPTIONS[::-1], photos[::-1])
    for name in scorer.columns:
        tolerance = TOLERANCES.get((scorer.kind, name), 0)
        values = numbers(together[name])
        assert str(numbers(again[name])) == str(values), name  # as text, where NaN equals NaN
        alone = [
            numbers(measure(scorer, model, [caption], [photo])[name])[0]
            for caption, photo in zip(CAPTIONS, photos, strict=True)
        ]
        for other in (alone, numbers(backwards[name])[::-1]):
            if tolerance:
                np.testing.assert_allclose(flat(other), flat(values), rtol=0, atol=tolerance, err_msg=name)
            else:
                assert str(other) == str(values), name


def test_float_columns_hold_no_infinity(scorer, model, photos):
    for name, values in measure(scorer, model, CAPTIONS, photos).items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            assert not np.isinf(values).any(), name
