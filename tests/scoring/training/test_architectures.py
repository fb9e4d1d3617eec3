import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from chaffinch.scoring.clip import Clip
from chaffinch.scoring.clips.from_open_clip import dimensions
from chaffinch.scoring.scorer import Batch, fingerprint
from chaffinch.scoring.training.architectures import PUBLISHED, find_architecture, packaged
from chaffinch.scoring.training.building import build


def test_open_clips_own_names_are_left_to_it():
    assert find_architecture("ViT-B-32") is None
    assert find_architecture("no such name") is None


def test_packaged_models_are_built_by_name_and_are_small():
    assert "chaffinch-tiny" in packaged()
    for name in packaged():
        model = build(name, None, 0, "cpu", "auto")
        assert sum(weight.numel() for weight in model.network.parameters()) < 10_000_000
        assert model.network.encode_image(torch.zeros(2, 3, 64, 64)).shape == (2, dimensions(name))
        tokens = model.tokenizer(["A large red ball to the left of two green trees on a beach. 12% café"])
        assert tokens.max() < model.network.vocab_size
        assert model.network.encode_text(tokens).shape == (1, dimensions(name))


def test_few_merges_lose_no_text():
    tokenizer = build("chaffinch-tiny", None, 0, "cpu", "auto").tokenizer
    for text in ("a red ball", "zwei grüne bäume", "一只狗", "xqzzt 42%"):
        tokens = [token for token in tokenizer([text])[0].tolist() if token]
        assert tokenizer.decode(tokens[1:-1]).replace(" ", "") == text.replace(" ", "")


def test_a_fingerprint_follows_the_content_of_the_description_and_not_its_place(tmp_path, tiny, monkeypatch):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"any")
    moved = tmp_path / "elsewhere.json"
    moved.write_text(json.dumps(json.loads(Path(tiny).read_text()), indent=7))
    first, second = Clip(tiny, str(weights)), Clip(str(moved), str(weights))
    assert fingerprint(first, "cpu") == fingerprint(second, "cpu")
    changed = json.loads(moved.read_text())
    changed["preprocess_cfg"]["resize_mode"] = "shortest"
    moved.write_text(json.dumps(changed))
    assert fingerprint(first, "cpu") != fingerprint(second, "cpu")


def test_a_fingerprint_follows_the_merges(tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"any")
    original = packaged()["chaffinch-tiny"]
    for file in original.parent.iterdir():
        shutil.copy(file, tmp_path)
    copied = tmp_path / original.name
    name = fingerprint(Clip("chaffinch-tiny", str(weights)), "cpu")
    assert fingerprint(Clip(str(copied), str(weights)), "cpu") == name
    merges = find_architecture(str(copied)).merges
    merges.write_bytes(merges.read_bytes()[:-1] + b"?")
    assert fingerprint(Clip(str(copied), str(weights)), "cpu") != name


def test_the_scorer_measures_with_a_described_model_as_open_clip_does(tmp_path, tiny):
    model = build(tiny, None, 3, "cpu", "auto")
    weights = tmp_path / "weights.pt"
    torch.save({"state_dict": model.network.state_dict()}, weights)
    scorer = Clip(tiny, str(weights), embeddings=True)
    scorer.check()
    loaded = scorer.load("cpu")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8))
    measured = scorer.score(Batch(["0" * 32], ["a dog"], [scorer.prepare(picture, loaded)]), loaded)

    before = open_clip.list_models()
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / PUBLISHED).write_text(Path(tiny).read_text())
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    open_clip.load_checkpoint(network, str(weights))
    network.eval()
    with torch.no_grad():
        image = network.encode_image(transform(picture)[None], normalize=True)[0]
        text = network.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(["a dog"]), normalize=True)[0]
    assert measured["similarity"][0] == pytest.approx(float(image @ text), abs=1e-5)
    assert scorer.columns["image_embedding"].list_size == 32
    assert open_clip.list_models() == before


def test_a_bare_description_is_as_good(tmp_path, tiny):
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(json.loads(Path(tiny).read_text())["model_cfg"]))
    assert find_architecture(str(bare)).dimensions == dimensions(tiny) == 32
    assert build(str(bare), None, 0, "cpu", "auto").network.visual.preprocess_cfg["resize_mode"] == "shortest"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "describes no open_clip model: embed_dim, vision_cfg, text_cfg missing"),
        ('{"embed_dim": 8, "vision_cfg": {}}', "text_cfg missing"),
        (
            '{"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"tokenizer_kwargs": {"bpe_path": "none.gz"}}}',
            "names a file of merges that is not beside it",
        ),
    ],
)
def test_damaged_descriptions_are_named(tmp_path, content, message):
    path = tmp_path / "model.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Clip(str(path), "weights.pt").check()


def test_weights_of_another_model_are_refused(tmp_path, tiny):
    weights = tmp_path / "weights.pt"
    torch.save({"state_dict": {"logit_scale": torch.zeros(())}}, weights)
    with pytest.raises(ValueError, match="is it a checkpoint of"):
        Clip(tiny, str(weights)).load("cpu")
