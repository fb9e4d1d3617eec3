"""A small CLIP with random weights, for there is nothing to learn from good ones here."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TINY = "ViT-S-32-alt"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest model that open_clip describes, saved the way its own training saves one."""
    import open_clip
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    network = open_clip.create_model(TINY)
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good captions, one a line."""
    path = tmp_path_factory.mktemp("corpus") / "captions.txt"
    scenes = [
        f"A {noun} {verb} on the {place}."
        for noun in ("dog", "cat")
        for verb in ("runs", "sits")
        for place in ("beach", "sofa")
    ]
    path.write_text("\n".join(scenes), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Smooth random colours with shapes on them, of several sizes."""
    generator = np.random.default_rng(3)
    photos = []
    for width, height in ((224, 224), (640, 480), (90, 300), (257, 33), (20, 20)):
        seeds = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        photo = Image.fromarray(seeds).resize((width, height), Image.Resampling.BICUBIC)
        for _ in range(3):
            left, top = int(generator.integers(width)), int(generator.integers(height))
            photo.paste(
                tuple(generator.integers(0, 256, 3).tolist()), (left, top, left + width // 3, top + height // 4)
            )
        photos.append(photo)
    return photos
