"""SigLIP as open_clip builds it, and which transform a local file of weights is given."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from chaffinch.scoring.clip import Clip
from chaffinch.scoring.clips import from_open_clip
from chaffinch.scoring.scorer import Batch

TINY = "ViT-S-32-alt"
CAPTIONS = ["a dog on the beach", "Zwei KINDER, am Strand!", "the dog " * 200, "the_brown_fox", "&amp; a  Fox (red)"]
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module", params=["siglip", "siglip2 of fixed size"])
def published(request, checkpoints, tmp_path_factory) -> Path:
    """A small SigLIP as open_clip publishes one: its tower of timm's with an attention pool, and a text side."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = checkpoints[request.param]
    size = json.loads((tokenizer / "config.json").read_text())["text_config"]["vocab_size"]
    text = {"context_length": 64, "vocab_size": size, "width": 64, "heads": 2, "layers": 2, "no_causal_mask": True}
    text |= {"proj_bias": True, "pool_type": "last", "hf_tokenizer_name": str(tokenizer)}
    text |= {"tokenizer_kwargs": {"clean": "canonicalize"}}
    vision = {"image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "map"}
    vision |= {"timm_proj": "none"}
    model = {"embed_dim": 64, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    preprocessing = {"mean": HALF, "std": HALF, "interpolation": "bicubic", "resize_mode": "squash"}
    content = {"model_cfg": model, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                weights.mul_(4)
    torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def test_siglip_scores_are_those_of_open_clip_one_sample_at_a_time(published, photos):
    description, weights = (str(published / name) for name in ("open_clip_config.json", "open_clip_pytorch_model.bin"))
    scorer = Clip(description, weights, embeddings=True)
    model = scorer.load("cpu")
    prepared = [scorer.prepare(photo, model) for photo in photos]
    measured = scorer.score(Batch([""] * 5, CAPTIONS, prepared), model)

    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{published}")
    network.eval()
    tokenizer = open_clip.tokenizer.HFTokenizer(
        json.loads(Path(description).read_text())["model_cfg"]["text_cfg"]["hf_tokenizer_name"],
        context_length=64,
        clean="canonicalize",
    )
    for index, (caption, photo) in enumerate(zip(CAPTIONS, photos, strict=True)):
        with torch.no_grad():
            image = network.encode_image(transform(photo)[None], normalize=True)[0]
            text = network.encode_text(tokenizer([caption]), normalize=True)[0]
        assert measured["similarity"][index] == pytest.approx(float(image @ text), abs=1e-5)
        np.testing.assert_allclose(measured["image_embedding"][index].as_py(), image.numpy(), atol=5e-4)
    assert np.ptp(measured["similarity"]) > 1e-2
    assert scorer.prepare(Image.new("RGB", (90, 300), "white"), model).min() == 1


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "ViT-SO400M-14-SigLIP-384"])
def test_a_local_siglip_is_squashed_and_centred_as_its_tag_says(name):
    shared = from_open_clip._shared_transform(name, open_clip.list_pretrained_tags_by_model(name))
    assert shared == {
        "image_mean": HALF,
        "image_std": HALF,
        "image_interpolation": "bicubic",
        "image_resize_mode": "squash",
    }


def test_where_tags_differ_a_local_file_is_given_the_default():
    for name in ("ViT-L-14", "ViT-H-14", TINY):
        assert from_open_clip._shared_transform(name, open_clip.list_pretrained_tags_by_model(name)) == {}


def test_a_local_file_is_transformed_as_all_tags_of_its_model_are(checkpoint, monkeypatch):
    white = Image.new("RGB", (300, 224), "white")
    scorer = Clip(TINY, str(checkpoint))
    assert scorer.prepare(white, scorer.load("cpu")).min() > 1.5
    tag = {"hf_hub": "a", "mean": HALF, "std": HALF, "interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, {"one": tag, "other": tag | {"hf_hub": "b"}})
    model = scorer.load("cpu")
    assert scorer.prepare(white, model).max() == 1
    assert model.network.visual.preprocess_cfg["resize_mode"] == "squash"
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, {"one": tag, "other": {"hf_hub": "b"}})
    assert scorer.prepare(white, scorer.load("cpu")).min() > 1.5
