import dataclasses
import io
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional

from chaffinch.scoring.alignment.derivatives import ForwardMode
from chaffinch.scoring.alignment.direction import find_direction, own_state
from chaffinch.scoring.training import reweighting
from chaffinch.scoring.training.building import build
from chaffinch.scoring.training.checkpoints import load_state, save_state
from chaffinch.scoring.training.one_pass import values_and_slopes
from chaffinch.scoring.training.recipe import Augmentation, ClassifierRecipe, Recipe, Reweighting
from chaffinch.scoring.training.task import SettingError, TrainingError
from chaffinch.scoring.training.trainer import Trainer

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def keep(trainer, path):
    with path.open("wb") as file:
        trainer.task.save(file, 0.0, trainer.step)
    return str(path)


def moved(model, path, by=0.02, seed=1, pretrained=None):
    """A reference some way from a model's first weights."""
    network = build(model, pretrained, 0, "cpu", "float32").network
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += by * torch.randn_like(parameter)
    torch.save({"state_dict": network.state_dict()}, path)
    return str(path)


def slow_losses(network, pictures, tokens):
    """Each pair's share of the batch's loss, written out."""
    found = network(pictures, tokens)
    table = found["logit_scale"] * found["image_features"] @ found["text_features"].T
    n = len(table)
    if "logit_bias" not in found:
        rows = [functional.cross_entropy(table[i : i + 1], torch.tensor([i])) for i in range(n)]
        columns = [functional.cross_entropy(table.T[i : i + 1], torch.tensor([i])) for i in range(n)]
        return torch.stack([(row + column) / 2 for row, column in zip(rows, columns, strict=True)])
    table = table + found["logit_bias"]
    each = -functional.logsigmoid(torch.where(torch.eye(n, dtype=torch.bool), table, -table))
    return torch.stack([(each[i].sum() + each[:, i].sum()) / 2 for i in range(n)])


def slow_scores(network, pictures, tokens, target, chosen):
    """Mimic scores and cosines from a backward pass for each sample, in evaluation mode."""
    network.eval()
    parameters = {name: one for name, one in network.named_parameters() if chosen(name)}
    way = {name: target[name] - one.detach() for name, one in parameters.items()}
    length = math.sqrt(sum(float(one.double().square().sum()) for one in way.values()))
    scores, cosines = [], []
    for i in range(len(pictures)):
        network.zero_grad()
        slow_losses(network, pictures, tokens)[i].backward()
        dot = squares = 0.0
        for name, one in parameters.items():
            if one.grad is not None:
                dot += float((one.grad * way[name]).double().sum())
                squares += float(one.grad.double().square().sum())
        scores.append(-dot / length)
        cosines.append(scores[-1] / math.sqrt(squares))
    network.zero_grad()
    network.train()
    return torch.tensor(scores), torch.tensor(cosines)


@pytest.mark.parametrize(
    ("kind", "scores", "layers"),
    [
        ("still", "standardised", ("*",)),
        ("still", "raw", ("visual.proj",)),
        ("still", "cosine", ("visual.transformer.resblocks.1", "logit_scale")),
        ("dropout", "standardised", ("*",)),
        ("dropout", "cosine", ("*",)),
        ("sigmoid", "standardised", ("*",)),
        ("normalised", "raw", ("*",)),
    ],
)
def test_a_step_is_the_loop_of_backward_passes_and_the_weighted_gradient(
    models, squares, tmp_path, kind, scores, layers
):
    model, temperature = models[kind], 0.05 if scores == "raw" else 0.5
    recipe = Recipe(
        model,
        samples_seen=12,
        batch_size=12,
        learning_rate=0.01,
        warmup=0,
        epsilon=1.0,  # AdamW's first step is then about that of the gradient, not of its sign alone
        reweight=Reweighting(moved(model, tmp_path / "reference.pt"), temperature, scores, layers),
    )
    trainer = Trainer(recipe, squares(), "cpu", 1)
    slow = build(model, None, 0, "cpu", "float32").network
    slow.output_dict = True
    target = torch.load(recipe.reweight.reference, weights_only=True)["state_dict"]
    (loaded,) = trainer.task.read(squares(), [trainer._wanted(0)], trainer._visits, 1)
    batch = trainer.task.batch(loaded)

    def chosen(name):
        return layers == ("*",) or any(name == layer or name.startswith(f"{layer}.") for layer in layers)

    score, cosine = slow_scores(slow, batch.pictures, batch.tokens, target, chosen)
    used = cosine if scores == "cosine" else score
    if scores != "raw":
        used = (used - used.mean()) / used.std(correction=0)
    weights = torch.softmax(used / temperature, dim=0)
    torch.manual_seed(recipe.seed * 1_000_003)
    slow_loss = slow_losses(slow, batch.pictures, batch.tokens)
    (weights * slow_loss).sum().backward()
    torch.optim.AdamW(slow.parameters(), lr=0.01, betas=recipe.betas, eps=1.0, weight_decay=0.0).step()

    first = state_of(trainer.task.network)
    for group in trainer._optimizer.param_groups:
        group["weight_decay"] = 0.0
    (step,) = trainer.run()
    rows = [wanted.index for wanted in loaded.wanted]
    noted = {name: torch.from_numpy(values[rows, 0]) for name, values in trainer.log._values.items()}
    torch.testing.assert_close(noted["mimic_score"], score.float(), rtol=1e-3, atol=1e-4 * float(score.abs().max()))
    torch.testing.assert_close(noted["weight"], 12 * weights.float(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(noted["loss"], slow_loss.detach(), rtol=1e-4, atol=1e-5)
    assert weights.max() > 1.5 / 12
    assert step.weighing.effective == pytest.approx(1 / float(weights.square().sum()), rel=1e-3)
    expected, found = slow.state_dict(), trainer.task.network.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}")
    assert max(float((found[name] - first[name]).abs().max()) for name in found) > 1e-3


@pytest.mark.parametrize(
    ("kind", "layers"), [("still", "*"), ("still", "visual.proj"), ("dropout", "*"), ("normalised", "visual.attnpool")]
)
def test_uniform_weights_are_plain_training(models, squares, tmp_path, kind, layers):
    model = models[kind]
    # A large epsilon: AdamW would bring rounding to the size of a step where gradients vanish.
    plain = Recipe(
        model, samples_seen=40, batch_size=10, learning_rate=0.1, epsilon=1.0, augment=Augmentation((0.6, 1))
    )
    reference = moved(model, tmp_path / "reference.pt")
    uniform = dataclasses.replace(plain, reweight=Reweighting(reference, math.inf, layers=(layers,)))
    samples = squares(broken={4, 20}, several=True)
    one, other = Trainer(plain, samples, "cpu", 1), Trainer(uniform, samples, "cpu", 1)
    for step, weighed in zip(one.run(), other.run(), strict=True):
        assert weighed.loss == pytest.approx(step.loss, abs=1e-5)
        assert weighed.weighing.effective == pytest.approx(10 - len(samples.broken & seen(one, step)), rel=1e-5)
    assert other._reweighter._one_pass == ((kind, layers) == ("still", "visual.proj"))
    if not other._reweighter._one_pass:
        assert all(torch.equal(value, other.task.network.state_dict()[name]) for name, value in weights(one).items())
    for name, value in weights(one).items():
        torch.testing.assert_close(other.task.network.state_dict()[name], value, rtol=0, atol=1e-6)


def weights(trainer):
    return trainer.task.network.state_dict()


def seen(trainer, step):
    return {wanted.index for wanted in trainer._wanted(step.step - 1)}


@pytest.mark.parametrize(("kind", "alike"), [("still", True), ("dropout", False), ("normalised", False)])
def test_it_is_told_whether_both_modes_compute_the_same(models, squares, tmp_path, kind, alike):
    recipe = Recipe(
        models[kind], batch_size=8, reweight=Reweighting(moved(models[kind], tmp_path / "reference.pt", by=0.01))
    )
    trainer = Trainer(recipe, squares(), "cpu", 1)
    (loaded,) = trainer.task.read(squares(), [trainer._wanted(0)], trainer._visits, 1)
    before, chance = state_of(trainer.task.network), torch.get_rng_state()
    assert reweighting._one_mode(trainer.task, trainer.task.batch(loaded)) is alike
    assert torch.equal(chance, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


@pytest.mark.parametrize(
    "layers", [("*",), ("visual.proj",), ("text_projection", "visual.transformer.resblocks.1.ln_2")]
)
def test_one_pass_gives_slopes_and_the_gradients_of_a_plain_one(models, squares, tmp_path, layers):
    trainer = Trainer(Recipe(models["still"], batch_size=8), squares(), "cpu", 1)
    (loaded,) = trainer.task.read(squares(), [trainer._wanted(0)], trainer._visits, 1)
    batch, network = trainer.task.batch(loaded), trainer.task.network
    target = torch.load(moved(models["still"], tmp_path / "reference.pt"), weights_only=True)["state_dict"]
    direction = find_direction(network, own_state(network), own_state(network, target), layers)
    values, slopes = values_and_slopes(network, direction, lambda: trainer.task.losses(batch))
    _, (expected,) = ForwardMode(network, own_state(network), direction).evaluate(
        lambda _: (trainer.task.losses(batch),)
    )
    torch.testing.assert_close(slopes, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not slopes.requires_grad
    share = torch.rand(8)
    found = torch.autograd.grad((share * values).sum(), list(network.parameters()))
    plain = torch.autograd.grad((share * trainer.task.losses(batch)).sum(), list(network.parameters()))
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "layers"), [("still", "visual.transformer"), ("dropout", "*")])
def test_a_stop_after_any_step_changes_no_bit_and_loses_no_visit(models, squares, tmp_path, kind, layers):
    samples = squares(broken={4, 20}, several=True)
    recipe = Recipe(
        models[kind],
        samples_seen=50,
        batch_size=10,
        learning_rate=0.003,
        reweight=Reweighting(moved(models[kind], tmp_path / "reference.pt"), layers=(layers,)),
    )
    uids = [f"{index:032x}" for index in range(32)]

    def kept(trainer):
        state, log = io.BytesIO(), io.BytesIO()
        save_state(state, trainer.state())
        trainer.log.write(log, uids)
        return state.getvalue(), log.getvalue()

    whole = Trainer(recipe, samples, "cpu", 2)
    steps = [(step, kept(whole)) for step in whole.run()]
    for stop in (1, 3, 4):
        resumed = Trainer(recipe, samples, "cpu", 1)
        state, log = steps[stop - 1][1]
        resumed.resume(load_state(io.BytesIO(state)))
        resumed.log.read(io.BytesIO(log))
        torch.manual_seed(stop)
        assert list(resumed.run()) == [step for step, _ in steps[stop:]]
        assert kept(resumed) == steps[-1][1]
    table = pq.read_table(io.BytesIO(steps[-1][1][1]))
    assert table["uid"].to_pylist() == uids
    visits = np.array(table["visits"])
    assert visits.sum() == 50 - sum(len(samples.broken & seen(whole, step)) for step, _ in steps)
    assert {len(row) for row in table["mimic_score"].to_pylist()} == {2}
    assert visits[4] == 0
    assert np.isnan(table["mimic_mean"][4].as_py())


def test_swapped_captions_weigh_less(models, squares, swapped, tmp_path):
    """The reference learnt the right captions from the same first weights."""
    wrong = {3, 8, 12, 17, 21, 26, 30}
    still = Augmentation((1, 1))
    recipe = Recipe(models["still"], epochs=100, batch_size=32, learning_rate=0.001, weight_decay=0.0, augment=still)
    clean = Trainer(recipe, squares(), "cpu", 1)
    list(clean.run())
    reweight = Reweighting(keep(clean, tmp_path / "reference.pt"))
    weighed = dataclasses.replace(recipe, epochs=4, batch_size=16, learning_rate=0.0003, reweight=reweight)
    trainer = Trainer(weighed, swapped(wrong), "cpu", 1)
    steps = list(trainer.run())
    assert steps[-1].weighing.distance < steps[0].weighing.distance
    rows = np.array([index in wrong for index in range(32)])
    score, weight = (trainer.log._values[name].mean(axis=1) for name in ("mimic_score", "weight"))
    assert np.greater.outer(score[~rows], score[rows]).mean() > 0.85
    assert weight[~rows].mean() > 3 * weight[rows].mean()


@pytest.fixture
def probed(models, tmp_path):
    """A recipe for a linear probe on random features, which tell colours well enough."""
    path = tmp_path / "features.pt"
    torch.save(build(models["still"], None, 0, "cpu", "float32").network.state_dict(), path)
    return ClassifierRecipe(
        models["still"],
        str(path),
        epochs=60,
        batch_size=16,
        learning_rate=0.03,
        weight_decay=0.0,
        labels="cls",
        classes=COLOURS,
        freeze=True,
    )


@pytest.mark.parametrize("scores", ["standardised", "cosine"])
def test_wrong_labels_weigh_less(probed, labelled, tmp_path, scores):
    wrong = {2, 5, 9, 12, 16, 20, 23, 27, 29, 31}
    clean = Trainer(probed, labelled(), "cpu", 1)
    list(clean.run())
    assert clean.task.evaluate(labelled(), 8, 1).accuracy > 0.9
    reweight = Reweighting(keep(clean, tmp_path / "reference.pt"), scores=scores)
    plain, weighed = (
        Trainer(dataclasses.replace(probed, epochs=30, reweight=one), labelled(wrong), "cpu", 1)
        for one in (None, reweight)
    )
    list(plain.run())
    list(weighed.run())
    rows = np.array([index in wrong for index in range(32)])
    weight = weighed.log._values["weight"][:, :5].mean(axis=1)
    assert np.greater.outer(weight[~rows], weight[rows]).mean() > 0.85
    assert weight[~rows].mean() > 3 * weight[rows].mean()
    accuracies = [trainer.task.evaluate(labelled(), 8, 1).accuracy for trainer in (plain, weighed)]
    assert accuracies[1] > accuracies[0]


def test_a_probes_scores_have_a_closed_form(probed, labelled, tmp_path):
    """(y - p) . (V h) / |V| for a linear head; cosines through the hooks agree with its gradient, an outer product."""
    clean = Trainer(dataclasses.replace(probed, epochs=4), labelled(), "cpu", 1)
    list(clean.run())
    path = keep(clean, tmp_path / "reference.pt")
    trainer = Trainer(
        dataclasses.replace(probed, epochs=2, reweight=Reweighting(path, scores="cosine")), labelled(), "cpu", 1
    )
    run = trainer.run()
    for _ in range(3):
        next(run)
    head = state_of(trainer.task.network)
    (loaded,) = trainer.task.read(labelled(), [trainer._wanted(3)], trainer._visits, 1)
    next(run)
    target = torch.load(path, weights_only=True)["state_dict"]
    inputs = torch.cat([torch.stack(loaded.pictures), torch.ones(16, 1)], dim=1)  # the bias as one more input
    here, there = (torch.cat([one["head.weight"], one["head.bias"][:, None]], dim=1) for one in (head, target))
    way = there - here
    error = functional.one_hot(torch.tensor(loaded.captions), 4) - (inputs @ here.T).softmax(dim=1)
    score = (error * (inputs @ way.T)).sum(dim=1) / way.norm()
    rows, epoch = [wanted.index for wanted in loaded.wanted], loaded.wanted[0].visit // 32
    noted = {name: torch.from_numpy(values[rows, epoch]) for name, values in trainer.log._values.items()}
    torch.testing.assert_close(noted["mimic_score"], score, rtol=1e-4, atol=1e-6)
    cosine = score / (error.norm(dim=1) * inputs.norm(dim=1))
    torch.testing.assert_close(noted["mimic_cosine"], cosine, rtol=1e-4, atol=1e-6)


def test_cosines_of_a_whole_classifier_are_a_loop_and_of_one_layer_hooks(models, labelled, tmp_path):
    recipe = ClassifierRecipe(
        models["still"], epochs=2, batch_size=8, learning_rate=0.01, labels="cls", classes=COLOURS
    )
    clean = Trainer(recipe, labelled(), "cpu", 1)
    list(clean.run())
    path = keep(clean, tmp_path / "reference.pt")
    found = {}
    for layers in (("*",), ("visual.transformer.resblocks.1.mlp.c_fc",), ("head",)):
        weighed = dataclasses.replace(recipe, reweight=Reweighting(path, scores="cosine", layers=layers))
        trainer = Trainer(weighed, labelled(), "cpu", 1)
        (loaded,) = trainer.task.read(labelled(), [trainer._wanted(0)], trainer._visits, 1)
        batch = trainer.task.batch(loaded)
        with torch.no_grad():  # away from 0, where nothing reaches the tower
            trainer.task.network.head.weight += torch.linspace(-0.2, 0.2, 128).reshape(4, 32)
        scores = trainer._reweighter.weigh(batch).scores
        assert (trainer._reweighter._layer is None) == (layers == ("*",))
        trainer._reweighter._layer = None
        looped = trainer._reweighter.weigh(batch).scores
        for name, values in scores.items():
            torch.testing.assert_close(values, looped[name], rtol=1e-3, atol=1e-5)
        found[layers] = scores["mimic_cosine"]
    assert not torch.allclose(found["*",], found["head",])


def test_where_the_model_has_arrived_all_samples_count_alike(models, squares, tmp_path):
    path = moved(models["still"], tmp_path / "reference.pt")
    trainer = Trainer(Recipe(models["still"], batch_size=8, reweight=Reweighting(path)), squares(), "cpu", 1)
    run = trainer.run()
    next(run)
    trainer.task.network.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    step = next(run)
    assert (step.weighing.distance, step.weighing.mimic_score) == (0.0, None)
    assert step.weighing.effective == pytest.approx(8)
    rows = [wanted.index for wanted in trainer._wanted(1)]
    assert np.isnan(trainer.log._values["mimic_score"][rows, 0]).all()
    np.testing.assert_allclose(trainer.log._values["weight"][rows, 0], 1, rtol=1e-6)


def test_references_that_cannot_be_followed_are_named(models, squares, tmp_path):
    def trainer(reference, layers=("*",)):
        recipe = Recipe(models["still"], batch_size=8, reweight=Reweighting(str(reference), layers=layers))
        return Trainer(recipe, squares(), "cpu", 1)

    first = tmp_path / "first.pt"
    network = build(models["still"], None, 0, "cpu", "float32").network
    torch.save(network.state_dict(), first)
    with pytest.raises(SettingError, match="the same weights: name a reference of weights that were trained") as error:
        trainer(first)
    assert error.value.setting == "reweight.reference"
    moved(models["normalised"], tmp_path / "other.pt")
    with pytest.raises(SettingError, match=r"visual\.class_embedding") as error:
        trainer(tmp_path / "other.pt")
    assert error.value.setting == "reweight.reference"
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(SettingError, match="cannot load"):
        trainer(tmp_path / "damaged.pt")
    good = moved(models["still"], tmp_path / "good.pt")
    with pytest.raises(
        SettingError, match=r"no parameter matches 'visual\.porj'; there are such as visual\.proj"
    ) as error:
        trainer(good, ("visual.porj",))
    assert error.value.setting == "reweight.layers"
    with torch.no_grad():
        network.visual.proj[0, 0] = math.nan
    torch.save(network.state_dict(), tmp_path / "nan.pt")
    with pytest.raises(SettingError, match=r"no finite numbers, in visual\.proj"):
        trainer(tmp_path / "nan.pt")
    stranger = build(models["still"], None, 5, "cpu", "float32").network
    torch.save(stranger.state_dict(), tmp_path / "stranger.pt")
    with pytest.raises(SettingError, match="strangers"):
        trainer(tmp_path / "stranger.pt")


def test_references_of_classifiers_are_looked_at(probed, labelled, tmp_path):
    def trainer(reference):
        return Trainer(dataclasses.replace(probed, reweight=Reweighting(str(reference))), labelled(), "cpu", 1)

    with pytest.raises(SettingError, match=r"is no classifier that `chaffinch train` kept"):
        trainer(probed.pretrained)
    three = Trainer(dataclasses.replace(probed, classes=3), labelled(), "cpu", 1)
    with pytest.raises(SettingError, match="tells other classes apart"):
        trainer(keep(three, tmp_path / "three.pt"))
    whole = Trainer(dataclasses.replace(probed, freeze=False), labelled(), "cpu", 1)
    with pytest.raises(SettingError, match=r"the current model has no visual\.class_embedding"):
        trainer(keep(whole, tmp_path / "whole.pt"))


class Opaque(torch.autograd.Function):
    """Doubles, and tells only the backward pass how."""

    @staticmethod
    def forward(values):
        return 2 * values

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Doubling(torch.nn.Module):
    def forward(self, values):
        return Opaque.apply(values)


def test_operations_without_a_forward_derivative_are_told(models, squares, tmp_path):
    path = moved(models["still"], tmp_path / "reference.pt")
    trainer = Trainer(Recipe(models["still"], batch_size=8, reweight=Reweighting(path)), squares(), "cpu", 1)
    trainer.task.network.visual.ln_post = Doubling()
    trainer._reweighter._target = {
        name: there for name, there in trainer._reweighter._target.items() if "ln_post" not in name
    }
    with pytest.raises(TrainingError, match="without a forward derivative: choose `layers` behind it"):
        next(trainer.run())
