"""Mimic scores as a scorer: columns, what they follow from, settings and weights that are no use."""

import copy
import dataclasses
import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from chaffinch.scoring.alignment.negatives import draw_negatives, find_negatives
from chaffinch.scoring.mimic import Mimic
from chaffinch.scoring.scorer import Batch, SampleError, fingerprint

MODEL = "chaffinch-tiny"
CAPTIONS = ["a red circle", "two green squares on snow", "IMG_0031.JPG", "A blue star.", "nothing"]


def save(path, network):
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return str(path)


def moved(network, by, seed=1):
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_pool):
    """Weights of small models: of one lineage, of another, damaged; and shards of trusted pairs."""
    from chaffinch.scoring.training.architectures import find_architecture

    folder = tmp_path_factory.mktemp("mimic")
    torch.manual_seed(0)
    network = find_architecture(MODEL).create()[0]
    save(folder / "current.pt", network)
    save(folder / "later.pt", moved(network, 0.2, 2))
    save(folder / "reference.pt", moved(network, 0.5, 3))
    torch.save({"epoch": 7, "state_dict": network.state_dict()}, folder / "renamed.pt")
    spoilt = moved(network, 0.1)
    with torch.no_grad():
        spoilt.visual.conv1.weight[0, 0, 0, 0] = float("nan")
    save(folder / "nan.pt", spoilt)
    save(folder / "stranger.pt", find_architecture(MODEL).create()[0])
    wider = json.loads(json.dumps(dict(find_architecture(MODEL).model)))
    wider["vision_cfg"]["width"] = 32
    (folder / "wider.json").write_text(json.dumps({"model_cfg": wider}))
    shutil.copy(find_architecture(MODEL).merges, folder)
    save(folder / "wider.pt", find_architecture(str(folder / "wider.json")).create()[0])
    (folder / "html.pt").write_text("<html>")
    small_pool(folder / "trusted", shards=2, samples=5)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def build(folder):
    """(settings) -> a scorer of the small models."""

    def make(**changed) -> Mimic:
        given = {"pretrained": "current.pt", "reference": "reference.pt", "negatives": "trusted"} | changed
        for name in ("pretrained", "reference", "negatives"):
            value = given[name]
            given[name] = (
                tuple(str(folder / one) for one in value)
                if isinstance(value, tuple)
                else value
                if "://" in value or not value
                else str(folder / value)
            )
        return Mimic(MODEL, **given)

    return make


def measure(scorer, captions, pictures, uids=None, model=None):
    model = model or scorer.load("cpu")
    prepared = [scorer.prepare(picture, model) for picture in pictures]
    uids = uids or [f"{row:032x}" for row in range(len(captions))]
    return dict(scorer.score(Batch(uids, captions, prepared), model))


def rows(column):
    return np.array(column.to_pylist()) if isinstance(column, pa.Array) else column


def test_one_checkpoint_gives_numbers_and_several_give_vectors(build, photos):
    both = measure(build(pretrained=("current.pt", "later.pt"), cosine=True), CAPTIONS, photos)
    assert both["mimic_score"].type == pa.list_(pa.float32(), 2)
    for step, name in enumerate(("current.pt", "later.pt")):
        one = measure(build(pretrained=name, cosine=True), CAPTIONS, photos)
        for column, values in one.items():
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
            together = rows(both[column])
            np.testing.assert_array_equal(values, together if together.ndim == 1 else together[:, step], err_msg=column)
    np.testing.assert_allclose(one["excess_loss"], one["loss"] - one["reference_loss"], atol=1e-6)
    assert (np.sign(one["mimic_cosine"]) == np.sign(one["mimic_score"])).mean() > 0.5
    single = measure(build(pretrained=("later.pt",)), CAPTIONS, photos)
    np.testing.assert_array_equal(rows(single["mimic_score"])[:, 0], one["mimic_score"])


def test_a_pair_of_the_bank_in_the_pool_is_no_negative_of_itself(build, folder, photos):
    """By its uid, whatever its caption: it has one negative less to be told from."""
    scorer = build(bank=4)
    model = scorer.load("cpu")
    other = measure(scorer, ["a caption"], photos[:1], ["f" * 32], model)["loss"][0]
    for pair in draw_negatives(find_negatives([str(folder / "trusted")]), 4, 0):
        own = measure(scorer, ["a caption"], photos[:1], [pair.uid], model)["loss"][0]
        assert other - own > 0.1


def test_strips_are_refused_before_they_take_memory(build):
    from PIL import Image

    scorer = build()
    with pytest.raises(SampleError, match="too elongated"):
        scorer.prepare(Image.new("RGB", (60_000, 2)), scorer.load("cpu"))


def test_the_fingerprint_follows_all_that_changes_a_number(build, folder, tmp_path):
    base = build()
    elsewhere = Mimic(
        MODEL,
        *(str(shutil.copy(folder / name, tmp_path / f"other_{name}")) for name in ("current.pt", "reference.pt")),
        str(shutil.copytree(folder / "trusted", tmp_path / "moved")),
    )
    assert fingerprint(elsewhere, "cpu") == fingerprint(base, "cpu")
    assert str(folder) not in json.dumps(base.identity())
    changed = [
        {"pretrained": "later.pt"},
        {"pretrained": ("current.pt",)},
        {"pretrained": ("current.pt", "later.pt")},
        {"pretrained": ("later.pt", "current.pt")},
        {"reference": "later.pt"},
        {"layers": ("visual",)},
        {"bank": 5},
        {"seed": 1},
        {"cosine": True},
        {"derivative": "central"},
        {"precision": "bfloat16"},
        {"negatives": "trusted/00000000.tar"},
    ]
    names = [fingerprint(build(**one), "cpu") for one in changed] + [
        fingerprint(base, kind) for kind in ("cpu", "cuda")
    ]
    assert len(set(names)) == len(names)


def test_columns_and_checks_need_no_torch(build):
    scorer = build(pretrained=("current.pt", "later.pt"))
    program = (
        "import sys; from chaffinch.scoring.mimic import Mimic; from chaffinch.scoring.scorer import fingerprint\n"
        f"scorer = Mimic(**{dataclasses.asdict(scorer)!r}); scorer.check(); fingerprint(scorer, 'cpu')\n"
        "print(scorer.columns['loss']); assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(pa.list_(pa.float32(), 2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"reference": "current.pt"},
            "is the current model itself: name weights that were trained for longer, or on cl",
        ),
        ({"pretrained": ("later.pt", "reference.pt")}, "is the current model itself"),
        ({"pretrained": ()}, "pretrained is empty: name the current model's weights"),
        ({"pretrained": "missing.pt"}, "missing.pt' is not a file here: correct the path"),
        ({"reference": "missing.pt"}, "missing.pt' is not a file here: correct the path"),
        ({"negatives": "empty"}, "is no .tar file and no folder of them: name shards of trusted pairs"),
        ({"negatives": "s3://bucket/pairs"}, "are not on the local disk: copy them there, and name the copy"),
        ({"negatives": ()}, "negatives is empty: name shards of trusted pairs"),
        ({"layers": ()}, "layers is empty: name some, or leave it out to take all"),
        ({"bank": 1}, "bank is 1: give 2 or more negatives"),
        ({"precision": "float16"}, "precision 'float16' is unknown: use one of auto, float32, bfloat16"),
        ({"derivative": "backward"}, "derivative 'backward' is unknown: use one of forward, central"),
        (
            {"derivative": "central", "precision": "bfloat16"},
            "derivative central needs precision float32: bfloat16 rounds its small step away",
        ),
    ],
)
def test_settings_that_cannot_be_right_are_told_of_before_anything_is_loaded(build, changed, message):
    for call in (lambda: build(**changed).check(), lambda: build(**changed).load("cpu")):
        with pytest.raises(ValueError, match=message) as told:
            call()
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"reference": "renamed.pt"},
            "current.pt: reference and current model have the same weights: name a reference",
        ),
        (
            {"reference": "nan.pt"},
            r"the reference has weights that are no finite numbers, in visual\.conv1\.weight: take",
        ),
        (
            {"pretrained": "nan.pt"},
            r"nan.pt: the current model has weights that are no finite numbers, in visual\.conv1",
        ),
        (
            {"pretrained": ("current.pt", "nan.pt"), "layers": ("transformer",)},
            r"nan.pt: the current model has weights that are no finite numbers, in visual\.conv1\.weight: take another",
        ),
        ({"reference": "stranger.pt"}, r"are strangers: the cosine between their weights is -?0\.00\d; take one that"),
        ({"layers": ("transfromer",)}, r"layers: no parameter matches 'transfromer'; there are such as transformer"),
        ({"reference": "wider.pt"}, r"cannot load .*wider.pt' into chaffinch-tiny: .*size mismatch for visual\.conv1"),
        ({"pretrained": "html.pt"}, "cannot load .*html.pt' into chaffinch-tiny: is it a checkpoint of chaffinch-tiny"),
    ],
)
def test_weights_that_do_not_go_together_are_told_of(build, changed, message):
    scorer = build(**changed)
    scorer.check()
    with pytest.raises(ValueError, match=message) as told:
        scorer.load("cpu")
    assert "\n" not in str(told.value)


def test_negatives_that_are_none_are_told_of(build, folder, tmp_path, write_shard, sample):
    write_shard(tmp_path / "one.tar", sample("a"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes((folder / "trusted" / "00000000.tar").read_bytes()[:5000])
    for name, message in (("one", "there are 1 pairs that can be used"), ("cut", "cut.tar cannot be read to its end")):
        scorer = dataclasses.replace(build(), negatives=str(tmp_path / f"{name}.tar"))
        with pytest.raises(ValueError, match=message):
            scorer.load("cpu")


def test_chosen_layers_and_methods_give_other_scores_of_the_same_losses(build, photos):
    found = {
        name: measure(build(**changed), CAPTIONS, photos)
        for name, changed in {
            "all": {},
            "visual": {"layers": ("visual",)},
            "scale": {"layers": ("logit_scale",)},
            "central": {"derivative": "central"},
            "bfloat16": {"precision": "bfloat16"},
        }.items()
    }
    for one, other in itertools.combinations(found, 2):
        assert (found[one]["mimic_score"] != found[other]["mimic_score"]).any(), (one, other)
    for name in ("visual", "scale"):
        np.testing.assert_allclose(found[name]["loss"], found["all"]["loss"], rtol=1e-5)
    spread = np.ptp(found["all"]["mimic_score"])
    np.testing.assert_allclose(found["central"]["mimic_score"], found["all"]["mimic_score"], atol=0.02 * spread)
    assert found["bfloat16"]["mimic_score"].dtype == np.float32
