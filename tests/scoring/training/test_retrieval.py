import numpy as np
import pytest
import torch

from chaffinch.scoring.training import retrieval
from chaffinch.scoring.training.building import build
from chaffinch.scoring.training.retrieval import recall, retrieve


def slow_recall(images, captions, owners, k):
    """Sorts every list, the wrong ones first among equals."""
    found = []
    for picture, image in enumerate(images):
        ranked = sorted((-float(image @ caption), owners[one] == picture) for one, caption in enumerate(captions))
        found.append(any(right for _, right in ranked[:k]))
    back = []
    for one, caption in enumerate(captions):
        ranked = sorted((-float(caption @ image), owners[one] == picture) for picture, image in enumerate(images))
        back.append(any(right for _, right in ranked[:k]))
    return np.mean(found), np.mean(back)


@pytest.mark.parametrize("block", [1024, 3])
@pytest.mark.parametrize("values", ["real", "tied"])
def test_recall_is_that_of_sorting(block, values, monkeypatch):
    monkeypatch.setattr(retrieval, "_ROWS", block)
    rng = np.random.default_rng(5)
    owners = np.repeat(np.arange(23), rng.integers(1, 4, 23))
    rng.shuffle(owners)
    images, captions = rng.normal(size=(23, 4)), rng.normal(size=(len(owners), 4))
    if values == "tied":
        images, captions = images.round(), captions.round()
    captions += images[owners]
    to_text, to_image = recall(torch.tensor(images), torch.tensor(captions), torch.tensor(owners))
    for k in (1, 5, 10):
        one, back = slow_recall(images, captions, owners, k)
        assert to_text[f"R@{k}"] == pytest.approx(one)
        assert to_image[f"R@{k}"] == pytest.approx(back)
    assert 0 < to_image["R@1"] < 1


def test_a_model_that_tells_nothing_apart_finds_nothing():
    same = torch.nn.functional.normalize(torch.ones(50, 8), dim=1)
    to_text, to_image = recall(same, same, torch.arange(50))
    assert set(to_text.values()) == set(to_image.values()) == {0.0}


def test_every_caption_counts_and_broken_pictures_are_told(tiny, squares):
    model = build(tiny, None, 0, "cpu", "auto")
    found = retrieve(model, squares(broken={3, 7}, several=True), 5, 1)
    assert (found.pictures, found.captions) == (30, 60)
    assert sum(found.unusable.values()) == 2
    assert model.network.training
    again = retrieve(model, squares(broken={3, 7}, several=True), 32, 2)
    assert again == found


def test_nothing_to_evaluate_on_is_an_error(tiny, squares):
    with pytest.raises(ValueError, match="no sample to evaluate on can be read: picture"):
        retrieve(build(tiny, None, 0, "cpu", "auto"), squares(broken=range(32)), 8, 1)
