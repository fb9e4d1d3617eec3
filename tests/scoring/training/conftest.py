"""Pictures that can be told apart and named, and the smallest model that can learn to."""

import copy
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from chaffinch.scoring.scorer import SampleError
from chaffinch.scoring.training.architectures import find_architecture

COLOURS = {"red": (220, 40, 40), "green": (30, 160, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
SIZES = {"tiny": 10, "small": 20, "large": 30, "huge": 38}
GROUNDS = {"white": (250, 250, 250), "black": (10, 10, 10)}


class Squares:
    """32 pictures of a square, and what each shows in one or two sentences."""

    def __init__(self, broken=(), several=False):
        self.broken = broken
        self.several = several
        self.shown = [(c, s, g) for c in COLOURS for s in SIZES for g in GROUNDS]

    def __len__(self):
        return len(self.shown)

    def picture(self, index):
        if index in self.broken:
            return b"\xff\xd8\xff broken"
        colour, size, ground = self.shown[index]
        pixels = np.full((40, 40, 3), GROUNDS[ground], np.uint8)
        pixels[: SIZES[size], : SIZES[size]] = COLOURS[colour]
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    def captions(self, index):
        colour, size, ground = self.shown[index]
        first = f"a {size} {colour} square on {ground}"
        return [first, f"{ground} with {colour}, {size}"] if self.several else [first]


class Labelled(Squares):
    """What colour the square has, as labels; those of some pictures are the next colour's."""

    def __init__(self, wrong=(), **options):
        super().__init__(**options)
        self.wrong = wrong

    def captions(self, index):
        colours = list(COLOURS)
        return [colours[(colours.index(self.shown[index][0]) + (index in self.wrong)) % len(colours)]]


class Swapped(Squares):
    """Some pictures have the captions of others."""

    def __init__(self, wrong=(), **options):
        super().__init__(**options)
        self.wrong = wrong

    def captions(self, index):
        return super().captions((index + 13) % len(self) if index in self.wrong else index)


class Nothing(Squares):
    def captions(self, index):
        raise SampleError("json has no entry 'captions'")


@pytest.fixture
def squares():
    return Squares


@pytest.fixture
def labelled():
    return Labelled


@pytest.fixture
def swapped():
    return Swapped


@pytest.fixture
def nothing():
    return Nothing()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A description of a model with 50,000 weights beside those of its words, dropout included."""
    path = tmp_path_factory.mktemp("model") / "smallest.json"
    path.write_text(json.dumps({"model_cfg": smallest(), "preprocess_cfg": {"resize_mode": "squash"}}))
    return str(path)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Descriptions of models that differ in what training mode means to them, and in their losses."""
    folder = tmp_path_factory.mktemp("models")
    merges = find_architecture("chaffinch-tiny").merges
    shutil.copy(merges, folder)
    still = smallest()
    still["text_cfg"] |= {"vocab_size": 4610, "tokenizer_kwargs": {"bpe_path": merges.name}}
    dropout = copy.deepcopy(still)
    del still["vision_cfg"]["patch_dropout"]
    normalised = still | {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32}}
    kinds = {
        "still": still,
        "dropout": dropout,
        "sigmoid": still | {"init_logit_bias": -2, "custom_text": True},
        "normalised": normalised,
    }
    for name, described in kinds.items():
        content = {"model_cfg": described, "preprocess_cfg": {"resize_mode": "squash"}}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return {name: str(folder / f"{name}.json") for name in kinds}


def smallest():
    return {
        "embed_dim": 32,
        "vision_cfg": {
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
            "image_size": 32,
            "patch_dropout": 0.1,
        },
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
