"""CLIP, SigLIP and SigLIP 2 against transformers' own processor and forward pass, one sample at a time."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers

from chaffinch.scoring.clip import Clip
from chaffinch.scoring.prompt_pair import PromptPair
from chaffinch.scoring.scorer import Batch, fingerprint

KINDS = ("clip", "siglip", "siglip2 of fixed size", "siglip2 of any aspect")
CAPTIONS = ["a dog on the beach", "Zwei KINDER, am Strand!", "the dog " * 200, "IMG_01.jpg", "&amp; a  Fox (red)"]


def scorer_of(folder, **settings) -> Clip:
    return Clip(str(folder), embeddings=True, library="transformers", **settings)


@pytest.fixture(scope="module")
def models(checkpoints):
    return {kind: scorer_of(folder).load("cpu") for kind, folder in checkpoints.items()}


def measure(scorer, model, captions, photos) -> dict:
    prepared = [scorer.prepare(photo, model) for photo in photos]
    return dict(scorer.score(Batch([""] * len(captions), captions, prepared), model))


def twin(folder, kind, caption, photo):
    """What a user of transformers would write after the model's own documentation."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    texts = {"truncation": True, "padding": "max_length", "max_length": 64}
    if kind == "clip":
        texts = {"truncation": True}  # causal, and read at its end: needs no padding
    if kind == "siglip2 of fixed size":
        caption = caption.lower()
    inputs = processor(images=[photo], text=[caption], return_tensors="pt", **texts)
    with torch.no_grad():
        out = model(**inputs)
    image, text = (torch.nn.functional.normalize(one, dim=-1)[0] for one in (out.image_embeds, out.text_embeds))
    return float(image @ text), image.numpy(), text.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_transformers_one_sample_at_a_time(checkpoints, models, photos, kind):
    folder = checkpoints[kind]
    measured = measure(scorer_of(folder), models[kind], CAPTIONS, photos)
    for index, (caption, photo) in enumerate(zip(CAPTIONS, photos, strict=True)):
        similarity, image, text = twin(folder, kind, caption, photo)
        assert measured["similarity"][index] == pytest.approx(similarity, abs=1e-5)
        np.testing.assert_allclose(measured["image_embedding"][index].as_py(), image, atol=5e-4)
        np.testing.assert_allclose(measured["caption_embedding"][index].as_py(), text, atol=5e-4)
    assert np.ptp(measured["similarity"]) > 1e-2  # or any of them would agree with any other


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_the_neighbours(checkpoints, models, photos, kind):
    scorer = scorer_of(checkpoints[kind])
    together = measure(scorer, models[kind], CAPTIONS, photos)["similarity"]
    alone = [
        measure(scorer, models[kind], [caption], [photo])["similarity"][0]
        for caption, photo in zip(CAPTIONS, photos, strict=True)
    ]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_prepare_the_same(models, photos, kind):
    with ThreadPoolExecutor(8) as threads:
        prepared = list(threads.map(models[kind].transform, photos * 12))
    for photo, found in zip(photos * 12, prepared, strict=True):
        for name, values in models[kind].transform(photo).items():
            assert torch.equal(values, found[name])


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_takes_all_the_room_there_is(models, kind):
    tokens = models[kind].tokenise(["a dog", "the dog " * 200])["input_ids"]
    assert tokens.shape == (2, 77 if kind == "clip" else 64)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "siglip" in kind])
def test_siglip_reads_no_capitals(models, kind):
    shouted, said = models[kind].tokenise(["A DOG on the Beach", "a dog on the beach"])["input_ids"]
    assert torch.equal(shouted, said)


def test_gemmas_tokenizer_alone_would_read_them(models):
    tokenizer = models["siglip2 of fixed size"].processor.tokenizer
    assert tokenizer("A DOG")["input_ids"] != tokenizer("a dog")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_a_caption_would_not_have_been_read(models, kind):
    long = "a photo of a dog and " * 5_000
    cut, whole = models[kind].tokenise([long, long[:3_000]])["input_ids"]
    assert torch.equal(cut, whole)


@pytest.mark.parametrize(("kind", "length"), zip(KINDS, (24, 32, 32, 32), strict=True))
def test_columns_and_checks_need_no_torch(checkpoints, kind, length):
    program = (
        "import sys; from chaffinch.scoring.clip import Clip; from chaffinch.scoring.scorer import fingerprint\n"
        f"scorer = Clip({str(checkpoints[kind])!r}, embeddings=True, library='transformers')\n"
        "scorer.check(); fingerprint(scorer, 'cpu'); print(scorer.columns['image_embedding'].list_size)\n"
        "assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) == length


@pytest.mark.parametrize(("kind", "length"), [("clip", 512), ("siglip", 768), ("siglip2", 768)])
def test_what_a_published_description_leaves_out_is_transformers_default(tmp_path, kind, length):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "model.safetensors").touch()
    assert scorer_of(tmp_path).columns["image_embedding"].list_size == length
    defaults = {"clip": transformers.CLIPConfig, "siglip": transformers.SiglipConfig}.get(
        kind, transformers.Siglip2Config
    )()
    assert length == (defaults.projection_dim if kind == "clip" else defaults.vision_config.hidden_size)


def test_the_fingerprint_follows_the_files_and_not_their_place(checkpoints, tmp_path):
    first = scorer_of(checkpoints["siglip"])
    moved = shutil.copytree(checkpoints["siglip"], tmp_path / "elsewhere")
    (moved / "README.md").write_text("a note")
    assert fingerprint(first, "cpu") == fingerprint(scorer_of(moved), "cpu")
    assert str(checkpoints["siglip"]) not in json.dumps(first.identity())
    for name in ("model.safetensors", "processor_config.json", "spiece.model"):
        before = fingerprint(scorer_of(moved), "cpu")
        with open(moved / name, "ab") as file:
            file.write(b" ")
        assert fingerprint(scorer_of(moved), "cpu") != before, name


def test_names_on_the_hub_are_taken_as_they_are(tmp_path):
    scorer = Clip("google/siglip2-base-patch16-224", library="transformers")
    scorer.check()
    assert scorer.identity()["model"] == "google/siglip2-base-patch16-224"
    program = (
        "from chaffinch.scoring.clip import Clip\n"
        "for settings in ({}, {'embeddings': True}):\n"
        "    try: Clip('google/siglip2-base-patch16-224', library='transformers', **settings).load('cpu')\n"
        "    except ValueError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("no such folder is here; if it is a name on the hub, download it once with a netw") == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "weights/of/siglip"}, "'weights/of/siglip' is no folder here: correct the path, or give a name"),
        ({"model": "./siglip"}, "'./siglip' is no folder here"),
        ({"model": ""}, "'' is no folder here"),
        ({"model": "a/b", "pretrained": "openai"}, "'openai' goes with open_clip: transformers finds the weights"),
        ({"model": "a/b", "precision": "int8"}, "precision 'int8' is unknown"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(settings, message):
    for verb in (
        Clip(library="transformers", **settings).check,
        lambda: Clip(library="transformers", **settings).load("cpu"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            verb()
        assert message in str(error.value)


def test_other_libraries_are_refused():
    with pytest.raises(ValueError, match=r"library 'timm' is unknown: use one of open_clip, transformers"):
        Clip("ViT-B-32", "openai", library="timm").check()


def test_folders_that_are_none_of_transformers_are_refused_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"has no config.json that can be read: give a folder that transformers'"):
        scorer_of(tmp_path).check()
    (tmp_path / "open_clip_config.json").touch()
    with pytest.raises(ValueError, match=r"it is open_clip's, so name its open_clip_config.json"):
        scorer_of(tmp_path).check()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot be read: Expecting property name"):
        scorer_of(tmp_path).check()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"is of type 'bert', none of clip, siglip, siglip2"):
        scorer_of(tmp_path).check()
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match=r"has no weights: model.safetensors must lie in the folder"):
        scorer_of(tmp_path).check()
    with pytest.raises(ValueError, match=r"no model named .*: say library: transformers"):
        Clip(str(tmp_path), "x.pt").check()


def test_what_is_missing_of_a_checkpoint_is_named(checkpoints, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoints["clip"], tmp_path / "whole")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, such as visual_projection.weight"):
        scorer_of(folder).load("cpu")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot load .* with transformers: is the folder complete"):
        scorer_of(folder).load("cpu")
    shutil.copy(checkpoints["clip"] / "model.safetensors", folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"cannot load .* with transformers: is the folder complete"):
        scorer_of(folder).load("cpu")


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_code_in_weights_is_not_run(checkpoints, tmp_path, capsys):
    folder = shutil.copytree(checkpoints["clip"], tmp_path / "evil")
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot load"):
        scorer_of(folder).load("cpu")
    assert "unpickled" not in capsys.readouterr().out


def test_loading_is_quiet(checkpoints, capfd):
    scorer_of(checkpoints["siglip"]).load("cpu")
    assert capfd.readouterr().err == ""


def test_prompt_pairs_ask_the_text_side(checkpoints, models):
    settings = {"library": "transformers", "good": ("A Dog",), "bad": ("two children",)}
    scorer = PromptPair("siglip.image_embedding", str(checkpoints["siglip"]), **settings)
    scorer.check_columns({"siglip.image_embedding": pa.list_(pa.float16(), 32)})
    good, bad = models["siglip"].embed_captions(["a dog", "two children"]).double().numpy()
    expected = float(models["siglip"].network.logit_scale.detach().exp()) * (good - bad)
    np.testing.assert_allclose(scorer.load("cpu"), expected, rtol=1e-5, atol=1e-5)
