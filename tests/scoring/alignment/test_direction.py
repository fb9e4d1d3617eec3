"""The way from current weights to a reference's: its parameters, its length, and pairs that have none."""

import copy

import pytest
import torch
from torch import nn

from chaffinch.scoring.alignment.direction import check_lineage, choose_parameters, find_direction, own_state


class Tied(nn.Module):
    """An embedding that is the output layer too, statistics, a mask, and a table that is made anew with each model."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(9, 6)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6, bias=False))
        self.output = nn.Linear(6, 9, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
        self.register_buffer("fresh", torch.zeros(3), persistent=False)

    def forward(self, tokens):
        return self.output(self.block(self.embedding(tokens)) + self.fresh.sum())


def moved(network, by=0.1, seed=1):
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.fixture
def network():
    return Tied()


def way(network, reference, layers=("*",)):
    return find_direction(network, own_state(network), own_state(network, reference.state_dict()), layers)


def test_it_is_reference_minus_current_and_tied_tensors_count_once(network):
    reference = moved(network)
    direction = way(network, reference)
    assert list(direction.tensors) == [name for name, _ in network.named_parameters()]
    assert "output.weight" not in direction.tensors
    squares = 0.0
    for name, part in direction.tensors.items():
        expected = (reference.get_parameter(name) - network.get_parameter(name)).detach()
        torch.testing.assert_close(part, expected)
        squares += float(expected.double().square().sum())
    assert direction.length == pytest.approx(squares**0.5, rel=1e-6)


def test_half_precision_is_brought_to_float32_and_double_stays(network):
    reference = moved(network)
    half = {name: one.half() for name, one in reference.state_dict().items()}
    direction = find_direction(network, own_state(network), own_state(network, half))
    assert {one.dtype for one in direction.tensors.values()} == {torch.float32}
    double = way(copy.deepcopy(network).double(), copy.deepcopy(reference).double())
    assert {one.dtype for one in double.tensors.values()} == {torch.float64}
    assert direction.length == pytest.approx(double.length, rel=1e-3)


def test_the_state_is_what_a_network_runs_on(network):
    state = own_state(network)
    assert list(state) == [
        *(name for name, _ in network.named_parameters()),
        "mask",
        "block.1.running_mean",
        "block.1.running_var",
        "block.1.num_batches_tracked",
    ]
    assert not any(one.requires_grad for one in state.values())
    assert state["block.0.weight"].data_ptr() == network.block[0].weight.data_ptr()  # not copied


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (["block.0"], ["block.0.weight", "block.0.bias"]),
        (["block.?.weight"], ["block.0.weight", "block.1.weight", "block.2.weight"]),
        (["*.bias", "block.0.weight"], ["block.0.weight", "block.0.bias", "block.1.bias"]),
        (["output"], ["embedding.weight"]),
        (["output.weight", "embedding"], ["embedding.weight"]),
        (["block", "block.0"], [f"block.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias", "2.weight")]),
    ],
)
def test_patterns_name_parameters_or_modules(network, layers, names):
    assert choose_parameters(network, layers) == names
    assert list(way(network, moved(network), layers).tensors) == names


@pytest.mark.parametrize(
    ("pattern", "near"), [("blok.0", "block.0"), ("output.wieght", "output.weight"), ("qqqqq", "embedding.weight")]
)
def test_patterns_that_match_nothing_are_told_of_with_what_is_near(network, pattern, near):
    with pytest.raises(ValueError, match=f"no parameter matches '{pattern}'; there are such as .*{near}"):
        choose_parameters(network, ["block", pattern])
    with pytest.raises(ValueError, match="layers is empty: name some, or leave it out"):
        choose_parameters(network, [])


def test_the_first_tensor_of_another_architecture_is_named(network):
    state = moved(network).state_dict()
    narrower = state | {"block.0.weight": torch.zeros(5, 6), "block.2.weight": torch.zeros(5, 6)}
    shapes = r"\[6, 6\] in the current model and \[5, 6\] in the reference"
    with pytest.raises(ValueError, match=f"^block.0.weight has the shape {shapes}: both have to be checkpoints of one"):
        own_state(network, narrower)
    shorter = {name: one for name, one in state.items() if "block" not in name}
    with pytest.raises(ValueError, match=r"^the reference has no block\.0\.weight: both have to be"):
        own_state(network, shorter)
    with pytest.raises(ValueError, match=r"^the current model has no block\.3\.weight: both have to be"):
        own_state(network, state | {"block.3.weight": torch.zeros(1)})


@pytest.mark.parametrize("layers", [("*",), ("block.2",)])
@pytest.mark.parametrize("name", ["block.0.weight", "block.1.running_var"])
@pytest.mark.parametrize("whose", ["current model", "reference"])
def test_weights_that_are_no_numbers_are_refused_wherever_they_are(network, layers, name, whose):
    """In any layer, for they would make every score NaN."""
    reference = moved(network)
    spoilt = {"current model": network, "reference": reference}[whose]
    spoilt.state_dict()[name].view(-1)[1] = float("nan")
    with pytest.raises(
        ValueError, match=f"the {whose} has weights that are no finite numbers, in {name}: take another"
    ):
        way(network, reference, layers)


def test_infinite_weights_are_refused_and_infinite_masks_are_none(network):
    way(network, moved(network))
    with torch.no_grad():
        network.block[2].weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"in block\.2\.weight"):
        way(network, moved(network))


def test_equal_weights_have_no_way_between_them(network):
    with pytest.raises(
        ValueError, match="have the same weights: name a reference of weights that were trained for lon"
    ):
        way(network, copy.deepcopy(network))
    reference = copy.deepcopy(network)
    with torch.no_grad():
        reference.block[0].weight += 1
    assert way(network, reference).length == pytest.approx(6)
    with pytest.raises(
        ValueError, match=r"same weights in layers block\.2, \*bias: name a reference .*or other layers"
    ):
        way(network, reference, ["block.2", "*bias"])


def lineage(current, reference):
    check_lineage(current, own_state(current), own_state(current, reference.state_dict()))


def test_relatives_pass_with_statistics_of_their_own(network):
    reference = moved(network, 0.3)
    reference.block[1].running_mean += 2
    reference.block[1].num_batches_tracked += 100
    lineage(network, reference)


def test_strangers_are_refused():
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(nn.Sequential(nn.Linear(40, 40), nn.LayerNorm(40), nn.Linear(40, 40)))
    with pytest.raises(
        ValueError, match=r"are strangers: the cosine between their weights is -?0\.0\d\d; take one that"
    ):
        lineage(*models)
    lineage(models[0], moved(models[0], 0.3))  # three times its own weights in noise: what is left is enough


def test_so_are_opposites(network):
    opposite = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in opposite.parameters():
            parameter *= -1
    with pytest.raises(ValueError, match=r"the cosine between their weights is -1\.000"):
        lineage(network, opposite)


def test_tables_that_training_does_not_change_tell_strangers_too(network):
    reference = moved(network)
    reference.mask[0, 1] = -5.0
    with pytest.raises(ValueError, match="differ in mask, which training does not change: take one that was trained"):
        lineage(network, reference)


def test_models_without_matrices_are_of_one_lineage():
    lineage(nn.LayerNorm(3), moved(nn.LayerNorm(3)))
