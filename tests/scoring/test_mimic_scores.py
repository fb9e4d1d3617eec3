"""Mimic scores of any model and loss: against a loop of backward passes, and by what a step does to the weights."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from chaffinch.scoring.alignment.losses import Logits, classification, within_batch
from chaffinch.scoring.mimic import mimic_scores


class Language(nn.Module):
    """Classifies a text by a mean of embeddings that are the output layer too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.mixing = nn.Linear(5, 5)
        self.output = nn.Linear(5, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(torch.tanh(self.mixing(self.embedding(tokens).mean(dim=1))))


class Towers(nn.Module):
    """The least that has two towers, a scale and a bias."""

    def __init__(self):
        super().__init__()
        self.pictures = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
        self.captions = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 4))
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0))

    def forward(self, pairs):
        return tuple(
            nn.functional.normalize(tower(part), dim=1)
            for tower, part in zip((self.pictures, self.captions), pairs, strict=True)
        )


def convolutional(norm):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        norm(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2, bias=False),
        norm(8),
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def classified(model, batch):
    inputs, labels = batch
    return classification(model(inputs), labels)


def contrasted(model, batch):
    return within_batch(*model(batch), Logits(model.logit_scale.exp()))


def separated(model, batch):
    return within_batch(*model(batch), Logits(model.logit_scale.exp(), model.logit_bias))


def case(name, seed=0):
    """A model, a reference not far away, a loss and a batch of 6."""
    torch.manual_seed(seed)
    images, labels = torch.randn(6, 3, 12, 10), torch.randint(4, (6,))
    pairs = (torch.randn(6, 6), torch.randn(6, 5))
    model, loss, batch = {
        "BatchNorm": (convolutional(nn.BatchNorm2d), classified, (images, labels)),
        "GroupNorm": (convolutional(lambda width: nn.GroupNorm(2, width)), classified, (images, labels)),
        "tied": (Language(), classified, (torch.randint(7, (6, 4)), torch.randint(7, (6,)))),
        "contrastive": (Towers(), contrasted, pairs),
        "sigmoid": (Towers(), separated, pairs),
    }[name]
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer += torch.rand_like(buffer)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    for buffer in reference.buffers():  # they go with the reference, and are not looked at
        if buffer.is_floating_point():
            buffer += 5
    return model, reference, loss, batch


EVERY_CASE = ["BatchNorm", "GroupNorm", "tied", "contrastive", "sigmoid"]


def backward(model, reference, loss, batch, chosen=lambda name: True):
    """Scores from a backward pass for each sample."""
    model = copy.deepcopy(model).eval()
    targets = dict(reference.named_parameters())
    weights = {name: one for name, one in model.named_parameters() if chosen(name)}
    way = torch.cat([(targets[name] - one).detach().double().ravel() for name, one in weights.items()])
    scores = []
    for one in loss(model, batch):
        parts = torch.autograd.grad(one, list(weights.values()), retain_graph=True, allow_unused=True)
        gradient = torch.cat(
            [
                (torch.zeros_like(weight) if part is None else part).double().ravel()
                for part, weight in zip(parts, weights.values(), strict=True)
            ]
        )
        scores.append(float(-gradient @ way / way.norm()))
    return np.array(scores)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", EVERY_CASE)
def test_scores_are_those_of_a_loop_of_backward_passes(name, layout):
    model, reference, loss, batch = case(name)
    if name.endswith("Norm"):
        model, batch = model.to(memory_format=layout), (batch[0].to(memory_format=layout), batch[1])
    found = mimic_scores(model, reference.state_dict(), loss, batch)
    expected = backward(model, reference, loss, batch)
    assert found.dtype == torch.float32
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", EVERY_CASE)
def test_so_are_those_of_each_parameter_alone(name):
    model, reference, loss, batch = case(name)
    for parameter, _ in model.named_parameters():
        found = mimic_scores(model, reference.state_dict(), loss, batch, [parameter])
        expected = backward(model, reference, loss, batch, lambda other, parameter=parameter: other == parameter)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=parameter)


def test_double_precision_is_kept_until_the_score():
    model, reference, _, batch = case("BatchNorm")
    model, reference, batch = model.double(), reference.double(), (batch[0].double(), batch[1])

    def exact(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    found = mimic_scores(model, reference.state_dict(), exact, batch)
    np.testing.assert_allclose(found, backward(model, reference, exact, batch), rtol=1e-6)


@pytest.mark.parametrize("name", EVERY_CASE)
def test_central_differences_come_near(name):
    model, reference, loss, batch = case(name)
    exact = mimic_scores(model, reference.state_dict(), loss, batch)
    rough = mimic_scores(model, reference.state_dict(), loss, batch, derivative="central")
    assert 0 < (exact - rough).abs().max() < (0.05 if name.endswith("Norm") else 2e-3) * np.ptp(exact.numpy())


def test_central_differences_refuse_reduced_precision():
    model, reference, loss, batch = case("contrastive")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match="central differences need float32: leave autocast, or use forward"),
    ):
        mimic_scores(model, reference.state_dict(), loss, batch, derivative="central")


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(st.sampled_from(EVERY_CASE), st.integers(0, 1000), st.integers(0, 5))
def test_a_small_step_on_a_sample_goes_as_far_toward_the_reference_as_its_score_says(name, seed, row):
    """Sign and scale: a step w - lr g changes the distance to the reference by -lr s, to the first order."""
    model, reference, loss, batch = case(name, seed)
    score = float(mimic_scores(model, reference.state_dict(), loss, batch)[row])
    stepped = copy.deepcopy(model).double().eval()
    targets = [one.double() for one in copy.deepcopy(reference).parameters()]
    weights = list(stepped.parameters())

    def distance(parameters):
        return float(sum((one - there).square().sum() for one, there in zip(parameters, targets, strict=True)).sqrt())

    double = tuple(one.double() if one.is_floating_point() else one for one in batch)
    gradients = torch.autograd.grad(_losses(name, stepped, double)[row], weights, allow_unused=True)
    gradients = [torch.zeros_like(one) if part is None else part for part, one in zip(gradients, weights, strict=True)]
    length = float(sum(one.square().sum() for one in gradients).sqrt())
    with torch.no_grad():
        before = distance(weights)
        rate = 1e-4 * before / max(length, 1e-3)
        after = distance([weight - rate * part for weight, part in zip(weights, gradients, strict=True)])
    second_order = (rate * length) ** 2 / before
    assert after - before == pytest.approx(-rate * score, abs=second_order + 1e-4 * rate * length)
    if abs(score) > 1e-2 * length:
        assert (after < before) == (score > 0)


def _losses(name, model, batch):
    if name in ("contrastive", "sigmoid"):
        return {"contrastive": contrasted, "sigmoid": separated}[name](model, batch)
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.mark.parametrize("derivative", ["forward", "central"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_left_as_it_was(derivative, fails):
    model, reference, loss, batch = case("BatchNorm")
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    kept = [(id(one), one.requires_grad) for one in model.parameters()]
    target = {name: one.clone() for name, one in reference.state_dict().items()}

    def spoilt(model, batch):
        losses = loss(model, batch)
        if fails:
            raise KeyError("nothing of ours")
        return losses

    if fails:
        with pytest.raises(KeyError, match="nothing of ours"):
            mimic_scores(model, target, spoilt, batch, derivative=derivative)
    else:
        mimic_scores(model, target, spoilt, batch, derivative=derivative)
    assert [module.training for module in model] == [number != 1 for number in range(len(model))]
    assert model.training
    assert [(id(one), one.requires_grad) for one in model.parameters()] == kept
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert torch.equal(target[name], reference.state_dict()[name])
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.is_grad_enabled()
    loss(model, batch).sum().backward()  # and no tangent is left behind


def test_losses_that_are_not_one_number_a_sample_are_refused():
    model, reference, _, batch = case("BatchNorm")
    with pytest.raises(ValueError, match="loss gave a tensor of 2 dimensions: return one number for each sample"):
        mimic_scores(model, reference.state_dict(), lambda model, batch: model(batch[0]), batch)


def test_other_architectures_and_equal_weights_are_refused():
    model, _, loss, batch = case("BatchNorm")
    other = case("GroupNorm")[0].state_dict()
    with pytest.raises(ValueError, match=r"^the reference has no 1\.running_mean: both have to be checkpoints of one"):
        mimic_scores(model, other, loss, batch)
    with pytest.raises(ValueError, match="reference and current model have the same weights"):
        mimic_scores(model, copy.deepcopy(model).state_dict(), loss, batch)
