"""Mimic scores on the real pool: heads in between, configs that are compared, and a training that is not repeated."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from chaffinch.scoring.light.checkpoint import load_checkpoint
from chaffinch.scoring.light.heads import Heads, Size
from chaffinch.scoring.light.vocabulary import Vocabulary

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """The benchmarks are scripts: they find one another because they lie in one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        before = set(sys.modules)
        spec = importlib.util.spec_from_file_location("mimic_pool", BENCHMARKS / "mimic_pool.py")
        module = sys.modules["mimic_pool"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in set(sys.modules) - before:
            if name.startswith(("quality_", "mimic_")) or name in ("measuring", "curation_quality"):
                del sys.modules[name]


@pytest.fixture
def heads(tmp_path, script):
    """Files of two sets of heads of one size, for pictures of 6 features and captions of 512 numbers."""
    keep = sys.modules["mimic_heads"].keep
    words, paths = Vocabulary(("a", "ball", "dog")), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"{seed}.pt")
        keep(paths[-1], Heads(Size(6, 4, 512, 512)), words)
    return paths


def test_a_point_between_lies_between(heads, tmp_path, script):
    first, last = (load_checkpoint(path).heads.state_dict() for path in heads)
    for share in (0.0, 0.3, 1.0):
        found = load_checkpoint(script.between(*heads, share, tmp_path / "point.pt")).heads.state_dict()
        for name, value in found.items():
            assert torch.allclose(value, (1 - share) * first[name] + share * last[name], atol=1e-6), name


def test_heads_are_trained_on_what_can_be_used_and_once(heads, tmp_path, script, capsys):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    usable = np.arange(40) % 4 != 0
    features[~usable] = np.nan
    captions = ["a dog" if one else None for one in usable]
    pool = script.Pool([f"{row:032x}" for row in range(40)], captions, features, usable)
    paths = script.train_on_pool(pool, heads[0], tmp_path / "current", (0, 2), 0)
    assert "epoch 2" in capsys.readouterr().err
    begun, trained = (load_checkpoint(path).heads for path in paths)
    assert paths[0].read_bytes() == heads[0].read_bytes()
    assert all(torch.isfinite(weight).all() for weight in trained.parameters())
    assert not torch.equal(begun.caption.weight, trained.caption.weight)
    assert script.train_on_pool(pool, heads[0], tmp_path / "current", (0, 2), 0) == paths
    assert capsys.readouterr().err == ""


def test_variants_differ_in_their_votes_alone(tmp_path, script):
    plain = yaml.safe_load((BENCHMARKS.parent / "examples" / "mixed.yaml").read_text())
    alignment = {"kind": "mimic_light"}
    path = script.write_config(tmp_path / "variant.yaml", alignment, ["mimic, sign", "-reference_loss"], script.CLIPS)
    variant = yaml.safe_load(Path(path).read_text())
    added = {"mimic_sign", "reference_loss"}
    assert set(variant["filters"]) == set(plain["filters"]) - set(script.CLIPS) | added
    assert all(variant["filters"][name] == plain["filters"][name] for name in set(variant["filters"]) - added)
    assert set(variant["scorers"]) == {*plain["scorers"], "features", "alignment"}
    rest = {"scorers", "filters"}
    assert {k: v for k, v in variant.items() if k not in rest} == {k: v for k, v in plain.items() if k not in rest}


def test_orders_put_the_better_first(script):
    names = [f"epoch {epoch}" for epoch in script.EPOCHS]
    rng = np.random.default_rng(0)
    found = {name: rng.normal(size=(7, 5)) for name in ("mimic_score", "mimic_cosine", "loss", "excess_loss")}
    found |= {name: rng.normal(size=(7, 1)) for name in ("reference_loss", "reference_similarity")}
    told = script.orders(found, names)
    assert np.argmax(told["-loss, epoch 5"]) == np.argmin(found["loss"][:, 3])
    assert np.argmax(told["-reference_loss"]) == np.argmin(found["reference_loss"])
    assert np.argmax(told["mimic_score, epoch 12"]) == np.argmax(found["mimic_score"][:, 4])
    assert told["mimic_score, mean of epochs 0-2"][0] == pytest.approx(found["mimic_score"][0, :3].mean())
