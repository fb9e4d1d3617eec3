import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from chaffinch.scoring.alignment.hooks import LayerError, align_layer


class Network(nn.Module):
    """A linear layer in the midst of others, called `calls` times for each sample."""

    def __init__(self, places, calls):
        super().__init__()
        self.places, self.calls = places, calls
        self.before, self.layer, self.after = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs):
        values = torch.tanh(self.before(inputs))
        for _ in range(self.calls):
            values = torch.tanh(self.layer(values))
        return self.after(values if values.ndim == 2 else values.mean(dim=1))


def slow(network, inputs, labels, weight, bias):
    """<g, v> and |g| of each sample, from its own gradient."""
    chosen = [
        (parameter, way)
        for parameter, way in ((network.layer.weight, weight), (network.layer.bias, bias))
        if way is not None
    ]
    slopes, lengths = [], []
    for row in range(len(inputs)):
        loss = functional.cross_entropy(network(inputs[row : row + 1]), labels[row : row + 1])
        gradients = torch.autograd.grad(loss, [parameter for parameter, _ in chosen])
        slopes.append(sum(float((one * way).sum()) for one, (_, way) in zip(gradients, chosen, strict=True)))
        lengths.append(sum(float(one.square().sum()) for one in gradients) ** 0.5)
    return torch.tensor(slopes), torch.tensor(lengths)


@given(
    st.integers(1, 6),
    st.sampled_from([None, 1, 4]),
    st.integers(1, 2),
    st.sampled_from(["both", "weight", "bias"]),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=40)
def test_hooks_tell_what_a_loop_of_gradients_does(samples, places, calls, chosen, seed):
    torch.manual_seed(seed)
    network = Network(places, calls)
    shape = (samples, 5) if places is None else (samples, places, 5)
    inputs, labels = torch.randn(shape), torch.randint(3, (samples,))
    weight = torch.randn(5, 5) if chosen != "bias" else None
    bias = torch.randn(5) if chosen != "weight" else None
    found = align_layer(
        network.layer, lambda: functional.cross_entropy(network(inputs), labels, reduction="none"), weight, bias
    )
    slopes, lengths = slow(network, inputs, labels, weight, bias)
    torch.testing.assert_close(found.slopes, slopes, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.lengths, lengths, rtol=1e-3, atol=1e-5)
    expected = torch.autograd.grad(
        functional.cross_entropy(network(inputs), labels, reduction="sum"), network.before.weight
    )
    torch.testing.assert_close(torch.autograd.grad(found.losses.sum(), network.before.weight), expected)


def test_layers_whose_calls_tell_nothing_are_refused():
    network, inputs = Network(None, 0), torch.randn(4, 5)
    with pytest.raises(LayerError, match="not called"):
        align_layer(network.layer, lambda: network(inputs).sum(dim=1), torch.ones(5, 5), None)
    sequence_first = torch.randn(7, 4, 5)
    with pytest.raises(LayerError, match="4 samples along their first"):
        align_layer(network.before, lambda: network.before(sequence_first).sum(dim=(0, 2)), torch.ones(5, 5), None)
    assert not network.before._forward_hooks
