import io
import json
import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from chaffinch.scoring.clip import Clip
from chaffinch.scoring.images import decode
from chaffinch.scoring.training.architectures import PUBLISHED
from chaffinch.scoring.training.building import build
from chaffinch.scoring.training.checkpoints import halve, load_state, save_state, save_weights
from chaffinch.scoring.training.recipe import Augmentation, Recipe
from chaffinch.scoring.training.retrieval import retrieve
from chaffinch.scoring.training.task import TrainingError
from chaffinch.scoring.training.trainer import Trainer


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(tiny):
    return Recipe(tiny, samples_seen=60, batch_size=10, learning_rate=0.003, augment=Augmentation(crop=(0.6, 1.0)))


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_it_learns_32_pairs_by_heart(tiny, squares):
    recipe = Recipe(
        tiny, epochs=120, batch_size=32, learning_rate=0.003, weight_decay=0.0, augment=Augmentation((1, 1))
    )
    trainer = Trainer(recipe, squares(), "cpu", 1)
    trainer.model.network.visual.patch_dropout = torch.nn.Identity()
    losses = [step.loss for step in trainer.run()]
    assert losses[0] == pytest.approx(math.log(32), abs=0.5)
    assert np.mean(losses[-5:]) < 0.7
    found = retrieve(trainer.model, squares(), 16, 1)
    assert found.image_to_text["R@1"] > 0.9
    assert found.text_to_image["R@1"] > 0.9


def test_a_stop_after_any_step_changes_no_bit(recipe, squares):
    """Model with dropout, samples that cannot be read, several captions: all chance there is."""
    samples = squares(broken={4, 20}, several=True)
    whole = Trainer(recipe, samples, "cpu", 2)
    steps, states = [], []
    for step in whole.run():
        steps.append(step)
        file = io.BytesIO()
        save_state(file, whole.state())
        states.append(file.getvalue())
    assert len(steps) == 6
    for stop in range(1, 6):
        resumed = Trainer(recipe, samples, "cpu", 1)
        resumed.resume(load_state(io.BytesIO(states[stop - 1])))
        torch.manual_seed(stop)  # what happened elsewhere must not matter
        assert list(resumed.run()) == steps[stop:]
        assert_same(weights(resumed), weights(whole))
        file = io.BytesIO()
        save_state(file, resumed.state())
        assert file.getvalue() == states[-1]
    assert steps[-1].unusable == len(whole.unusable) == 2


def test_the_seed_decides_everything(recipe, squares):
    def train(seed, threads=1):
        trainer = Trainer(Recipe(**(vars(recipe) | {"seed": seed})), squares(several=True), "cpu", threads)
        return list(trainer.run())

    assert train(1) == train(1, threads=3)
    assert train(1) != train(2)


def test_a_step_is_open_clips_loss_and_torchs_adamw(recipe, squares):
    """One step, by hand, without augmentation and dropout."""
    still = Recipe(
        **(vars(recipe) | {"augment": Augmentation((1, 1), (1, 1)), "batch_size": 32, "samples_seen": 32, "warmup": 1})
    )
    trainer = Trainer(still, squares(), "cpu", 1)
    trainer.model.network.visual.patch_dropout = torch.nn.Identity()
    before = weights(trainer)
    slow = build(still.model, None, 0, "cpu", "float32")
    slow.network.load_state_dict(before)
    slow.network.visual.patch_dropout = torch.nn.Identity()
    order = [trainer._visits.sample(visit) for visit in range(32)]
    pictures = torch.stack([slow.transform(decode(squares().picture(index))) for index in order])
    tokens = slow.tokenizer([squares().captions(index)[0] for index in order])
    loss = open_clip.ClipLoss()(*slow.network(pictures, tokens)[:3])
    (step,) = trainer.run()
    assert step.loss == pytest.approx(loss.item(), abs=1e-5)
    optimizer = torch.optim.AdamW(slow.network.parameters(), lr=0.003, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    loss.backward()
    optimizer.step()
    # The largest gradients: what is near 0 may take either sign, and AdamW's first step is that of the sign.
    weight = slow.network.visual.proj
    large = weight.grad.abs() > weight.grad.abs().median()
    torch.testing.assert_close(trainer.model.network.visual.proj[large], weight[large], atol=1e-5, rtol=0)
    assert step.gradient == pytest.approx(
        math.sqrt(sum(float((one.grad**2).sum()) for one in slow.network.parameters())), rel=1e-4
    )


def test_biases_and_scales_do_not_decay(recipe, squares):
    groups = Trainer(recipe, squares(), "cpu", 1)._optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    assert all(weight.ndim > 1 for weight in groups[0]["params"])
    assert all(weight.ndim < 2 for weight in groups[1]["params"])


def test_checkpoints_are_read_by_open_clip_and_by_the_scorer(recipe, squares, tmp_path):
    trainer = Trainer(recipe, squares(), "cpu", 1)
    list(trainer.run())
    with open(tmp_path / "final.pt", "wb") as file:
        save_weights(file, trainer.model.network, "smallest", 1.875, 6)
    for name, content in trainer.description().items():
        (tmp_path / name).write_bytes(content)
    loaded = Clip(str(tmp_path / PUBLISHED), str(tmp_path / "final.pt")).load("cpu")
    assert_same(loaded.network.state_dict(), weights(trainer))
    network = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    open_clip.load_checkpoint(network, str(tmp_path / "final.pt"))
    assert_same(network.state_dict(), weights(trainer))


def test_halved_weights_measure_nearly_the_same(recipe, squares, tmp_path):
    trainer = Trainer(recipe, squares(), "cpu", 1)
    list(trainer.run())
    whole, half = tmp_path / "whole.pt", tmp_path / "half.pt"
    with whole.open("wb") as file:
        save_weights(file, trainer.model.network, "smallest", 1.875, 6)
    with whole.open("rb") as source, half.open("wb") as target:
        halve(source, target)
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    one, other = (Clip(recipe.model, str(path)).load("cpu") for path in (whole, half))
    pictures = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        similar = torch.nn.functional.cosine_similarity(
            one.network.eval().encode_image(pictures), other.network.eval().encode_image(pictures)
        )
    assert similar.min() > 0.999


def test_training_goes_on_from_given_weights(checkpoint, squares, tmp_path):
    """A model of open_clip's own by its name, as in plain open_clip."""
    trainer = Trainer(Recipe("ViT-S-32-alt", str(checkpoint), samples_seen=4, batch_size=4), squares(), "cpu", 1)
    expected = open_clip.create_model("ViT-S-32-alt", pretrained=str(checkpoint))
    assert_same(weights(trainer), expected.state_dict())
    list(trainer.run())
    with open(tmp_path / "step_1.pt", "wb") as file:
        save_weights(file, trainer.model.network, "ViT-S-32-alt", 0.125, 1)
    again = open_clip.create_model("ViT-S-32-alt", pretrained=str(tmp_path / "step_1.pt"))
    assert_same(again.state_dict(), weights(trainer))


def test_models_with_a_bias_train_with_the_sigmoid_loss(tiny, squares, tmp_path):
    described = json.loads(Path(tiny).read_text())
    described["model_cfg"] |= {"init_logit_bias": -10, "custom_text": True}
    path = tmp_path / "sigmoid.json"
    path.write_text(json.dumps(described))
    trainer = Trainer(Recipe(str(path), samples_seen=320, batch_size=32, learning_rate=0.003), squares(), "cpu", 1)
    losses = [step.loss for step in trainer.run()]
    assert losses[-1] < losses[0] - 1


def test_a_loss_that_is_no_number_stops_with_step_and_remedy(recipe, squares):
    trainer = Trainer(recipe, squares(), "cpu", 1)
    run = trainer.run()
    next(run)
    before = weights(trainer)
    with torch.no_grad():
        trainer.model.network.visual.proj[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"the loss of step 2 is not a number: lower learning_rate \(0.003\)"):
        next(run)
    del before["visual.proj"]
    assert_same(before, {name: value for name, value in weights(trainer).items() if name != "visual.proj"})


def test_batches_without_a_pair_teach_nothing(tiny, squares):
    trainer = Trainer(Recipe(tiny, epochs=1, batch_size=2), squares(broken=set(range(32)) - {5, 9}), "cpu", 1)
    steps = list(trainer.run())
    assert len(steps) == 16
    assert {step.loss for step in steps} <= {None}
    assert steps[-1].unusable == 30


def test_samples_that_cannot_be_read_at_all_are_an_error(recipe, squares, nothing):
    with pytest.raises(TrainingError, match="none of the 32 samples can be read: picture"):
        list(Trainer(recipe, squares(broken=range(32)), "cpu", 1).run())
    with pytest.raises(TrainingError, match="none of the 32 samples can be read: json has no entry"):
        list(Trainer(recipe, nothing, "cpu", 1).run())


def test_a_damaged_state_is_named():
    with pytest.raises(ValueError, match=r"\w+: "):
        load_state(io.BytesIO(b"PK\x03\x04 not a checkpoint"))
