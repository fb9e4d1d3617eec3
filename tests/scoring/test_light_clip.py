"""The light CLIP scorer: heads over features that were measured before."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from chaffinch.scoring.light.checkpoint import save_checkpoint
from chaffinch.scoring.light.heads import Heads, Size
from chaffinch.scoring.light.vocabulary import Vocabulary
from chaffinch.scoring.light_clip import LightClip
from chaffinch.scoring.scorer import Batch, fingerprint

CAPTIONS = ["a dog runs", "ein Hund", "the boat", "?"]


@pytest.fixture(scope="module")
def scorer(light_heads) -> LightClip:
    return LightClip("yolox.features", str(light_heads), embeddings=True)


@pytest.fixture(scope="module")
def model(scorer):
    return scorer.load("cpu")


def batch(features, captions=CAPTIONS) -> Batch:
    columns = {"yolox.features": pa.array(list(features), pa.list_(pa.float16()))}
    return Batch([f"{row:032x}" for row in range(len(captions))], captions, (), columns)


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (4, 6)).astype(np.float16)


def test_similarity_is_the_cosine_of_what_is_kept(scorer, model, features):
    found = scorer.score(batch(features), model)
    images, captions = (np.array(found[name].to_pylist()) for name in ("image_embedding", "caption_embedding"))
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=2e-3)
    assert np.allclose((images * captions).sum(axis=1), found["similarity"], atol=5e-3)


def test_alone_or_in_a_batch_and_in_either_kind_of_list(scorer, model, features):
    together = scorer.score(batch(features), model)["similarity"]
    for row, caption in enumerate(CAPTIONS):
        fixed = pa.FixedSizeListArray.from_arrays(pa.array(features[row]), 6)
        alone = Batch(["0" * 32], [caption], (), {"yolox.features": fixed})
        assert scorer.score(alone, model)["similarity"][0] == pytest.approx(together[row], abs=1e-5)


def test_features_that_are_no_numbers_cannot_be_judged(scorer, model, features):
    features[2, 3] = np.nan
    assert np.isnan(scorer.score(batch(features), model)["similarity"]).tolist() == [False, False, True, False]


def test_features_of_another_detector_are_refused(scorer, model, features):
    with pytest.raises(ValueError, match=r"vectors of 5 numbers.* trained on 6: train them with this detector"):
        scorer.score(batch(features[:, :5]), model)


def test_a_moved_file_changes_no_fingerprint(scorer, tmp_path):
    moved = tmp_path / "other.pt"
    moved.write_bytes(Path(scorer.weights).read_bytes())
    assert fingerprint(dataclasses.replace(scorer, weights=str(moved)), "cpu") == fingerprint(scorer, "cuda")


def test_columns_that_are_no_vectors_are_refused(scorer):
    scorer.check_columns({"yolox.features": pa.list_(pa.float16())})
    with pytest.raises(ValueError, match="float, not a vector; an onnx_detector with `features: true` writes one"):
        scorer.check_columns({"yolox.features": pa.float32()})


class _Code:
    def __reduce__(self):
        return (print, ("code ran",))


def test_other_files_are_refused_with_the_remedy(tmp_path, capsys):
    path = tmp_path / "weights.pt"
    scorer = LightClip("yolox.features", str(path))
    with pytest.raises(ValueError, match="is not a file here: correct the path, or let `chaffinch train` make it"):
        scorer.check()
    torch.save({"state_dict": {"visual.proj": torch.zeros(2)}, "name": "ViT-B-32"}, path)
    with pytest.raises(ValueError, match="does not hold the heads of a light_clip"):
        scorer.load("cpu")
    path.write_bytes(pickle.dumps(_Code()))
    with pytest.raises(ValueError, match=r"name the final\.pt that `chaffinch train` wrote"):
        scorer.load("cpu")
    assert "code ran" not in capsys.readouterr().out
    heads = Heads(Size(6, 3, 4, 4))
    with path.open("wb") as file:
        save_checkpoint(file, heads, Vocabulary(("a", "b")))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot load"):
        scorer.load("cpu")
