import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image

from chaffinch.pipeline.measuring import batches
from chaffinch.pipeline.measuring.batches import LoadedScorer
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.measure import measure as measure_shard
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.store import table_folder
from chaffinch.scoring.clip import Clip
from chaffinch.scoring.clips import from_open_clip
from chaffinch.scoring.clips.model import Model
from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import Batch, SampleError, fingerprint

TINY = "ViT-S-32-alt"
MATCHER = Path(__file__).resolve().parents[2] / "jobs" / "demo" / "matcher.pt"
CAPTIONS = ["a dog on the beach", "Zwei Kinder", "word " * 200, "IMG_01.jpg", "&amp; a  cat"]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return Clip(TINY, str(checkpoint)).load("cpu")


def measure(scorer: Clip, model: Model, captions, pictures) -> dict:
    prepared = [scorer.prepare(picture, model) for picture in pictures]
    return dict(scorer.score(Batch([""] * len(captions), captions, prepared), model))


def test_scores_are_those_of_open_clip_one_sample_at_a_time(checkpoint, loaded, photos):
    measured = measure(Clip(TINY, str(checkpoint), embeddings=True), loaded, CAPTIONS, photos)
    network, _, transform = open_clip.create_model_and_transforms(TINY, pretrained=str(checkpoint))
    network.eval()
    tokenizer = open_clip.get_tokenizer(TINY)
    for index, (caption, photo) in enumerate(zip(CAPTIONS, photos, strict=True)):
        with torch.no_grad():
            image = network.encode_image(transform(photo)[None], normalize=True)[0]
            text = network.encode_text(tokenizer([caption]), normalize=True)[0]
        assert measured["similarity"][index] == pytest.approx(float(image @ text), abs=1e-5)
        np.testing.assert_allclose(measured["image_embedding"][index].as_py(), image.numpy(), atol=5e-4)
        np.testing.assert_allclose(measured["caption_embedding"][index].as_py(), text.numpy(), atol=5e-4)
    assert np.ptp(measured["similarity"]) > 1e-3  # or any of them would agree with any other


def test_embeddings_are_unit_vectors_that_give_the_similarity(checkpoint, loaded, photos):
    measured = measure(Clip(TINY, str(checkpoint), embeddings=True), loaded, CAPTIONS, photos)
    images, captions = (
        np.stack(measured[name].to_numpy(zero_copy_only=False)).astype(np.float32)
        for name in ("image_embedding", "caption_embedding")
    )
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(captions, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose((images * captions).sum(axis=1), measured["similarity"], atol=2e-3)


def test_bfloat16_differs_a_little(checkpoint, loaded, photos):
    exact = measure(Clip(TINY, str(checkpoint)), loaded, CAPTIONS, photos)["similarity"]
    scorer = Clip(TINY, str(checkpoint), precision="bfloat16")
    model = scorer.load("cpu")
    rough = measure(scorer, model, CAPTIONS, photos)["similarity"]
    alone = [
        measure(scorer, model, [caption], [photo])["similarity"][0]
        for caption, photo in zip(CAPTIONS, photos, strict=True)
    ]
    np.testing.assert_allclose(alone, rough, atol=1e-2)
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 2e-2


def test_long_captions_are_cut_after_the_last_token_that_counts(checkpoint, loaded, photos):
    long = "a photo of a dog and " * 500
    scorer = Clip(TINY, str(checkpoint))
    whole, cut = (loaded.tokenizer([text]) for text in (long, long[: from_open_clip.MAX_CHARACTERS]))
    assert torch.equal(whole, cut)
    blank = " " * 5_000 + long
    same = measure(scorer, loaded, [long, long[: from_open_clip.MAX_CHARACTERS], blank, "x" * 200_000], photos[:1] * 4)
    assert len(set(same["similarity"][:3].tolist())) == 1


def test_forgetting_words_changes_no_token(checkpoint, monkeypatch):
    model = Clip(TINY, str(checkpoint)).load("cpu")
    before = model.tokenizer([*CAPTIONS, "<start_of_text> dog <end_of_text>"])
    monkeypatch.setattr(from_open_clip, "MAX_REMEMBERED_WORDS", 3)
    after = model.tokenise([*CAPTIONS, "<start_of_text> dog <end_of_text>"])
    assert torch.equal(before, after)
    model.tokenise(["dog"])
    assert set(model.tokenizer.cache) == {"<start_of_text>", "<end_of_text>", "dog"}


def test_strips_are_refused_before_they_take_memory(checkpoint, loaded):
    scorer = Clip(TINY, str(checkpoint))
    with pytest.raises(SampleError, match="too elongated to be scaled: 60000 x 2 pixels"):
        scorer.prepare(Image.new("RGB", (60_000, 2)), loaded)
    assert scorer.prepare(Image.new("RGB", (2, 400)), loaded).shape == (3, 224, 224)


def test_the_fingerprint_follows_the_weights_and_not_their_place(checkpoint, tmp_path):
    moved = shutil.copy(checkpoint, tmp_path / "elsewhere.pth")
    first, second = Clip(TINY, str(checkpoint)), Clip(TINY, str(moved))
    assert fingerprint(first, "cpu") == fingerprint(second, "cpu")
    with open(moved, "r+b") as file:
        file.write(b"??")
    assert fingerprint(first, "cpu") != fingerprint(second, "cpu")
    assert fingerprint(first, "cpu") != fingerprint(first, "cuda")
    assert str(checkpoint) not in json.dumps(first.identity())


def test_tags_and_names_have_one_fingerprint_however_spelled():
    first = Clip("ViT-B/32", "laion2b-s34b-b79k")
    second = Clip("ViT-B-32", "laion2b_s34b_b79k")
    assert fingerprint(first, "cpu") == fingerprint(second, "cpu")
    assert fingerprint(first, "cpu") != fingerprint(Clip("ViT-B-32", "openai"), "cpu")
    assert fingerprint(first, "cpu") != fingerprint(Clip("ViT-B-32", "laion2b_s34b_b79k", embeddings=True), "cpu")


def test_the_names_and_lengths_are_open_clips_own():
    expected = {name: open_clip.get_model_config(name)["embed_dim"] for name in open_clip.list_models()}
    assert dict(from_open_clip.known_models()) == expected


def test_columns_and_checks_need_no_torch(checkpoint):
    program = (
        "import sys; from chaffinch.scoring.clip import Clip; from chaffinch.scoring.scorer import fingerprint\n"
        f"scorer = Clip('ViT-L-14', {str(checkpoint)!r}, embeddings=True); scorer.check(); fingerprint(scorer, 'cpu')\n"
        "print(scorer.columns['image_embedding']); assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(pa.list_(pa.float16(), 768))


def together(shard, scorers) -> dict:
    """The tables of several scorers from one pass over a shard, by their names."""
    ready = [
        LoadedScorer(Wanted(name, table_folder(name, scorer, "cpu"), scorer), scorer.load("cpu"))
        for name, scorer in scorers.items()
    ]
    tables = measure_shard(shard.path, index_shard(shard), ready, 4)
    return {one.wanted.name: tables[one.folder] for one in ready}


@pytest.fixture
def several(checkpoint, tmp_path) -> dict[str, Clip]:
    """CLIPs with weights, preprocessing and ways of decoding of their own."""
    torch.manual_seed(1)
    other = tmp_path / "other.pt"
    torch.save(open_clip.create_model(TINY).state_dict(), other)
    return {
        "first": Clip(TINY, str(checkpoint), embeddings=True),
        "second": Clip(TINY, str(other)),
        "small": Clip("chaffinch-tiny", str(MATCHER)),
        "fast": Clip("chaffinch-tiny", str(MATCHER), fast=True),
    }


@pytest.fixture
def large(tmp_path, write_shard, sample, picture):
    """Six samples large enough for drafts, the third of which cannot be decoded."""
    members = [member for number in range(6) for member in sample(f"{number:02d}", number)]
    photos = [picture(number, (400 + number, 500)) for number in range(6)]
    photos[2] = photos[2][:3_000]
    whole = [(name, photos[int(name[:2])] if name.endswith(".jpg") else content) for name, content in members]
    return write_shard(tmp_path / "large" / "s.tar", whole)


def test_several_together_measure_what_each_measures_alone(several, large):
    tables = together(large, several)
    for name, scorer in several.items():
        alone = together(large, {name: scorer})[name]
        assert alone.column_names == tables[name].column_names
        for column in alone.column_names:
            assert alone[column].to_pylist() == tables[name][column].to_pylist(), (name, column)
        assert tables[name]["reject"].to_pylist()[2].startswith("picture cannot be decoded")
    similarities = {name: tables[name]["similarity"].drop_null().to_numpy() for name in several}
    assert np.abs(similarities["first"] - similarities["second"]).max() > 1e-3
    assert 0 < np.abs(similarities["small"] - similarities["fast"]).max() < 0.1


def test_they_share_one_decode_except_for_the_fast_path(several, large, monkeypatch):
    decoded = []
    monkeypatch.setattr(batches, "decode", lambda file: decoded.append(file) or decode(file))
    together(large, several)
    assert len(decoded) == len(set(decoded)) == 6
    together(large, {"fast": several["fast"]})
    assert len(decoded) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "ViT-B32", "pretrained": "openai"}, "no model named 'ViT-B32': did you mean ViT-B-32"),
        ({"model": "?", "pretrained": "openai"}, "no model named '?': it can be "),
        ({"model": TINY, "pretrained": "missing.pt"}, "'missing.pt' is not a file here"),
        ({"model": TINY, "pretrained": "weights/none"}, "'weights/none' is not a file here"),
        ({"model": TINY, "pretrained": ""}, "pretrained is empty"),
        ({"model": TINY, "pretrained": "openai", "precision": "int8"}, "precision 'int8' is unknown: use one of auto"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(settings, message):
    for verb in (Clip(**settings).check, lambda: Clip(**settings).load("cpu")):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            verb()
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "ViT-B-32", "pretrained": "openia"}, "no weights named 'openia': did you mean openai"),
        ({"model": TINY, "pretrained": "openai"}, "name a local file of weights, for it has no tags"),
    ],
)
def test_unknown_tags_are_refused_with_a_remedy(settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Clip(**settings).load("cpu")
    assert message in str(error.value)


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    "content",
    [b"", b"not weights", {"state_dict": {"visual.proj": torch.ones(3)}}, {"a": 1}, [1], Evil(), torch.ones(2)],
    ids=["empty", "bytes", "one tensor", "no tensor", "list", "code", "tensor"],
)
def test_what_is_no_checkpoint_is_refused_with_a_remedy(tmp_path, content, capsys):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"cannot load .*weights.pt' into {TINY}: is it a checkpoint of {TINY}"):
        Clip(TINY, str(path)).load("cpu")
    assert "unpickled" not in capsys.readouterr().out


def test_weights_of_another_architecture_are_refused(checkpoint):
    with pytest.raises(ValueError, match=r"is it a checkpoint of ViT-S-32"):
        Clip("ViT-S-32", str(checkpoint)).load("cpu")


def test_tags_come_from_the_cache_with_the_activation_they_were_trained_with(checkpoint, monkeypatch):
    asked = []

    def give(settings, **_):
        asked.append(settings)
        return str(checkpoint)

    half = (0.5, 0.5, 0.5)
    tags = {"quick": {"hf_hub": "a", "quick_gelu": True, "mean": half, "std": half}, "plain": {"hf_hub": "b"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, tags)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", give)
    quick, plain = Clip(TINY, "quick").load("cpu"), Clip(TINY, "plain").load("cpu")
    assert asked == [tags["quick"], tags["plain"]]
    names = [{type(module).__name__ for module in model.network.modules()} for model in (quick, plain)]
    assert ["QuickGELU" in found for found in names] == [True, False]
    white = Image.new("RGB", (224, 224), "white")
    assert torch.equal(Clip(TINY, "quick").prepare(white, quick), torch.ones(3, 224, 224))
    assert Clip(TINY, "plain").prepare(white, plain).min() > 1.5


def test_a_missing_network_is_named_with_a_remedy(tmp_path):
    program = (
        "from chaffinch.scoring.clip import Clip\n"
        "try: Clip('RN50', 'openai').load('cpu')\n"
        "except ValueError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "cannot load 'openai' into RN50: download them once with a network, or name a local file" in done.stdout
    assert list(tmp_path.glob("**/*.safetensors")) == []
