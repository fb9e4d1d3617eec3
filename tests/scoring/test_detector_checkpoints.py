import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from chaffinch.scoring.detector import Detector
from chaffinch.scoring.scorer import fingerprint


@pytest.fixture
def folder(small_detector, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(small_detector("owlvit"), tmp_path / "owl")


def message(scorer, verb="check"):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        scorer.check() if verb == "check" else scorer.load("cpu")
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"checkpoint": ""}, "checkpoint is empty: name a folder"),
        (
            {"checkpoint": "/nowhere/dino"},
            "'/nowhere/dino' is no folder here: correct the path, or give a name on the hub",
        ),
        ({"checkpoint": "./dino"}, "'./dino' is no folder here"),
        (
            {"checkpoint": "a/b", "prompt": ()},
            "prompt is an empty vocabulary: list at least one phrase, or use caption",
        ),
        ({"checkpoint": "a/b", "prompt": ("dog", " ")}, "prompt lists ' ': give every entry letters or digits"),
        ({"checkpoint": "a/b", "prompt": ("dog", "dog")}, "prompt lists 'dog' more than once"),
        (
            {"checkpoint": "a/b", "prompt": "captions"},
            "prompt 'captions' is unknown: use caption, or a list of phrases",
        ),
        ({"checkpoint": "a/b", "floor": 1.0}, "floor is 1.0: give a confidence from 0 up to 1"),
        ({"checkpoint": "a/b", "text_threshold": -0.1}, "text_threshold is -0.1: give a confidence"),
        ({"checkpoint": "a/b", "max_objects": 0}, "max_objects is 0: give a whole number"),
        ({"checkpoint": "a/b", "precision": "int8"}, "precision 'int8' is unknown: use one of auto"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(settings, expected):
    assert expected in message(Detector(**settings))
    assert expected in message(Detector(**settings), "load")


def test_a_checkpoint_of_another_kind_is_told_by_its_config(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(text_config={**sizes, "vocab_size": 50}, vision_config={**sizes, "image_size": 32})
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    text = message(Detector(str(tmp_path / "clip")))
    assert "is a model of type 'clip', no zero-shot detector: use Grounding DINO, MM Grounding DINO, OWL-ViT" in text


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "{", '{"model_type": null}'])
def test_a_folder_without_a_config_is_refused(folder, content):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    text = message(Detector(str(folder)))
    assert "save_pretrained" in text or "of type None" in text


def test_missing_files_are_named(folder):
    kept = (folder / "processor_config.json").read_bytes()
    (folder / "processor_config.json").unlink()
    assert "has no settings of its image processor: one of processor_config.json, " in message(Detector(str(folder)))
    (folder / "processor_config.json").write_bytes(kept)
    kept = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer: one of tokenizer.json, " in message(Detector(str(folder)))
    (folder / "tokenizer.json").write_bytes(kept)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert "has no weights: one of model.safetensors, " in message(Detector(str(folder)))


def test_a_file_is_no_folder(folder):
    assert "is a file: give the folder that holds it" in message(Detector(str(folder / "model.safetensors")))


@pytest.mark.parametrize(
    "content", [b"", b"not weights", b'\x08\0\0\0\0\0\0\0{"a": 1}'], ids=["empty", "text", "header"]
)
def test_damaged_weights_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    text = message(Detector(str(folder)), "load")
    assert f"cannot open checkpoint {str(folder)!r}: is the folder complete?" in text


def test_weights_that_are_not_all_there_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("box_head")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    missing = len(weights) - len(kept)
    assert f"lacks {missing} weights of OWL-ViT, such as box_head.dense0.bias" in message(Detector(str(folder)), "load")


def test_weights_that_published_checkpoints_lack_may_be_missing(small_detector, tmp_path):
    """The norm at the end of Swin, which no detector uses."""
    folder = shutil.copytree(small_detector("grounding-dino"), tmp_path / "dino")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "swin.layernorm" not in name}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    Detector(str(folder)).load("cpu")


def test_weights_of_another_size_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 1
    config["vision_config"]["hidden_size"] = 16
    (folder / "config.json").write_text(json.dumps(config))
    assert "cannot open checkpoint" in message(Detector(str(folder)), "load")


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_a_pickle_of_weights_runs_no_code(folder, capsys):
    (folder / "model.safetensors").unlink()
    torch.save({"owlvit.logit_scale": Evil()}, folder / "pytorch_model.bin")
    assert "cannot open checkpoint" in message(Detector(str(folder)), "load")
    assert "unpickled" not in capsys.readouterr().out


def test_a_name_on_the_hub_that_cannot_be_had_is_named_with_a_remedy(tmp_path):
    program = (
        "from chaffinch.scoring.detector import Detector\n"
        "scorer = Detector('IDEA-Research/grounding-dino-tiny', revision='main'); scorer.check()\n"
        "try: scorer.load('cpu')\n"
        "except ValueError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "cannot open checkpoint 'IDEA-Research/grounding-dino-tiny': no such folder is here" in done.stdout
    assert done.stderr == ""


def test_the_fingerprint_follows_the_files_and_not_their_place(folder, small_detector):
    first, second = Detector(str(small_detector("owlvit"))), Detector(str(folder))
    assert fingerprint(first, "cpu") == fingerprint(second, "cpu") != fingerprint(first, "cuda")
    assert str(folder) not in json.dumps(second.identity())
    (folder / "README.md").write_text("No number depends on this.")
    assert fingerprint(first, "cpu") == fingerprint(second, "cpu")
    for name in ("model.safetensors", "processor_config.json", "tokenizer.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept[:-1] + b"?")
        assert fingerprint(first, "cpu") != fingerprint(second, "cpu"), name
        (folder / name).write_bytes(kept)
        assert fingerprint(first, "cpu") == fingerprint(second, "cpu"), name


def test_the_fingerprint_follows_every_setting_that_changes_numbers():
    changes = [
        {},
        {"checkpoint": "c/d"},
        {"revision": "v2"},
        {"prompt": ("dog", "cat")},
        {"prompt": ("cat", "dog")},
        {"floor": 0.1},
        {"max_objects": 10},
        {"text_threshold": 0.3},
        {"precision": "bfloat16"},
    ]
    names = {fingerprint(Detector(**{"checkpoint": "a/b", **change}), "cpu") for change in changes}
    assert len(names) == len(changes)
    assert fingerprint(Detector("a/b", where="required"), "cpu") in names


def test_a_revision_is_the_hubs(folder):
    assert "revision 'main' belongs to a name on the hub" in message(Detector(str(folder), revision="main"))


def test_columns_and_checks_need_no_torch(folder):
    program = (
        "import sys\n"
        "from chaffinch.scoring.detector import Detector\n"
        "from chaffinch.scoring.scorer import fingerprint\n"
        f"scorer = Detector({str(folder)!r}); scorer.check(); fingerprint(scorer, 'cpu'); scorer.columns\n"
        "assert not {'torch', 'transformers', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
