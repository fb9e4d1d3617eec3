"""The rules against torch's own forward derivatives, in double precision, and against differences."""

import itertools

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from chaffinch.scoring.alignment.rules import Rules, split


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def evaluate(function, values, tangents, rules):
    with forward_mode.dual_level():
        duals = [
            value if tangent is None else forward_mode.make_dual(value, tangent)
            for value, tangent in zip(values, tangents, strict=True)
        ]
        if rules:
            with Rules():
                return split(function(*duals))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # neither has a derivative
        try:
            with sdpa_kernel(SDPBackend.MATH):
                return split(function(*duals))
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def check(function, values, moving=None, bitwise=True):
    """Value and tangent for every choice of inputs that move, or for the given one."""
    choices = itertools.product([False, True], repeat=len(values)) if moving is None else [moving]
    for choice in choices:
        tangents = [torch.randn_like(value) if moves else None for value, moves in zip(values, choice, strict=True)]
        value, tangent = evaluate(function, values, tangents, rules=True)
        expected, slope = evaluate(function, values, tangents, rules=False)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
        assert (tangent is None) == (slope is None)
        if not any(choice):
            assert tangent is None
            if bitwise:
                assert torch.equal(value, function(*values))  # the operation itself
            continue
        torch.testing.assert_close(tangent, slope, rtol=1e-10, atol=1e-10)
        ahead, behind = (
            function(*[one if d is None else one + step * d for one, d in zip(values, tangents, strict=True)])
            for step in (1e-6, -1e-6)
        )
        torch.testing.assert_close(tangent, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5), (1, 5), (0, 5)])
def test_linear(shape):
    check(functional.linear, [numbers(*shape), numbers(4, 5), numbers(4)])
    check(functional.linear, [numbers(*shape), numbers(4, 5)])


def test_linear_of_odd_layouts_weights_of_one_row_and_names():
    check(functional.linear, [numbers(5, 3, 2).permute(2, 1, 0), numbers(5, 4).t(), numbers(4)])
    check(
        lambda x, w, b: functional.linear(x.expand(3, 2, 5).transpose(0, 1), w, b),
        [numbers(3, 1, 5), numbers(1, 5), numbers(1)],
    )
    check(functional.linear, [numbers(3, 5), numbers(5)])  # a vector of weights
    check(lambda x, w, b: functional.linear(bias=b, weight=w, input=x), [numbers(3, 5), numbers(4, 5), numbers(4)])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same"},
        {"dilation": (2, 1)},
        {"groups": 2},
    ],
)
def test_convolution(settings):
    weight = numbers(6, 4 // settings.get("groups", 1), 3, 3)

    def convolve(x, w, b=None):
        return functional.conv2d(x, w, b, **settings)

    check(convolve, [numbers(2, 4, 7, 6), weight, numbers(6)])
    check(convolve, [numbers(2, 4, 7, 6), weight])
    check(convolve, [numbers(2, 4, 7, 6).to(memory_format=torch.channels_last), weight, numbers(6)])
    check(convolve, [numbers(4, 7, 6), weight, numbers(6)])  # one picture


def test_convolution_by_position_by_name_and_of_patches():
    values = [numbers(2, 3, 8, 8), numbers(5, 3, 4, 4), numbers(5)]
    check(lambda x, w, b: functional.conv2d(x, w, b, 4), values)
    check(lambda x, w, b: torch.conv2d(input=x, weight=w, bias=b, stride=4), values)
    check(lambda x, w, b: functional.conv2d(x, w, bias=b, padding=2), values)


def test_group_norm_of_any_layout():
    for layout in (torch.contiguous_format, torch.channels_last):
        values = [numbers(2, 4, 3, 5).to(memory_format=layout), numbers(4), numbers(4)]
        tangents = [torch.randn_like(one) for one in values]

        def normalise(x, weight, bias):
            return functional.group_norm(x, 2, weight=weight, bias=bias, eps=1e-3)

        value, tangent = evaluate(normalise, values, tangents, rules=True)
        torch.testing.assert_close(value, normalise(*values))
        ahead, behind = (
            normalise(*[one + step * d for one, d in zip(values, tangents, strict=True)]) for step in (1e-6, -1e-6)
        )
        torch.testing.assert_close(tangent, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7)


MASKS = {
    "none": lambda: None,
    "bool": lambda: torch.rand(5, 6) < 0.7,
    "bool_of_each": lambda: torch.rand(2, 1, 5, 6) < 0.7,
    "float": lambda: numbers(5, 6),
    "float_of_heads": lambda: numbers(3, 5, 6),
    "infinite": lambda: numbers(5, 6).masked_fill(torch.rand(5, 6) < 0.3, float("-inf")),
}


@pytest.mark.parametrize("mask", MASKS)
def test_attention(mask):
    hidden = MASKS[mask]()
    if hidden is not None and hidden.dtype == torch.bool:
        hidden[..., 0] = True
    values = [numbers(2, 3, 5, 4), numbers(2, 3, 6, 4), numbers(2, 3, 6, 7)]
    check(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden), values)
    check(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, hidden, 0.0, scale=0.3), values)


def test_attention_with_a_mask_that_moves():
    values = [numbers(2, 3, 5, 4), numbers(2, 3, 6, 4), numbers(2, 3, 6, 4)]
    for shape in ((3, 5, 6), (1, 3, 5, 6), (2, 3, 5, 6), (5, 6)):
        check(functional.scaled_dot_product_attention, [*values, numbers(*shape)])


def test_causal_attention_of_any_number_of_axes():
    for before in ((), (3,), (2, 3), (2, 1, 3)):
        values = [numbers(*before, 5, 4), numbers(*before, 5, 4), numbers(*before, 5, 2)]
        check(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), values)
    values = [numbers(2, 3, 4), numbers(2, 5, 4), numbers(2, 5, 4)]
    check(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), values)


def test_attention_of_shared_keys_and_of_groups_that_differ_in_number():
    broadcast = [numbers(1, 3, 5, 4), numbers(2, 3, 6, 4), numbers(2, 3, 6, 4)]
    check(functional.scaled_dot_product_attention, broadcast)
    shared = [numbers(2, 6, 5, 4), numbers(2, 3, 5, 4), numbers(2, 3, 5, 4)]
    check(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True), shared)


def test_queries_that_may_see_nothing_get_zeros():
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[2] = False
    values = [numbers(2, 5, 4), numbers(2, 6, 4), numbers(2, 6, 4)]
    tangents = [torch.randn_like(one) for one in values]
    for hidden in (mask, torch.zeros(5, 6, dtype=torch.float64).masked_fill(~mask, float("-inf"))):

        def attend(q, k, v, hidden=hidden):
            return functional.scaled_dot_product_attention(q, k, v, hidden)

        value, tangent = evaluate(attend, values, tangents, rules=True)
        torch.testing.assert_close(value, attend(*values))
        assert (value[:, 2] == 0).all()
        assert (tangent[:, 2] == 0).all()
        assert torch.isfinite(tangent).all()


def layers():
    """Name -> a layer of attention, and how to call it."""

    def itself(layer, x, y):
        return layer(x, x, x, need_weights=False)[0]

    def both(layer, x, y):
        return layer(x, y, y, need_weights=False)[0]

    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    added = torch.zeros(5, 5, dtype=torch.float64).masked_fill(later, float("-inf"))
    padding = torch.tensor([[False] * 5, [False] * 4 + [True]])
    each = torch.rand(2 * 2, 5, 5) < 0.3
    each[..., 0] = False
    double = {"batch_first": True, "dtype": torch.float64}
    return {
        "itself": (nn.MultiheadAttention(8, 2, **double), itself),
        "first axis": (nn.MultiheadAttention(8, 2, dtype=torch.float64), itself),
        "both": (nn.MultiheadAttention(8, 2, **double), both),
        "no bias": (nn.MultiheadAttention(8, 2, bias=False, **double), itself),
        "other widths": (
            nn.MultiheadAttention(8, 2, kdim=6, vdim=3, **double),
            lambda layer, x, y: layer(x, y[..., :6], y[..., :3], need_weights=False)[0],
        ),
        "truths": (
            nn.MultiheadAttention(8, 2, **double),
            lambda layer, x, y: layer(x, x, x, need_weights=False, attn_mask=later)[0],
        ),
        "numbers": (
            nn.MultiheadAttention(8, 2, **double),
            lambda layer, x, y: layer(x, x, x, need_weights=False, attn_mask=added, is_causal=True)[0],
        ),
        "of each": (
            nn.MultiheadAttention(8, 2, **double),
            lambda layer, x, y: layer(x, x, x, need_weights=False, attn_mask=each)[0],
        ),
        "padding": (
            nn.MultiheadAttention(8, 2, **double),
            lambda layer, x, y: layer(x, x, x, need_weights=False, key_padding_mask=padding)[0],
        ),
        "with weights": (nn.MultiheadAttention(8, 2, **double), lambda layer, x, y: layer(x, x, x)[1]),
        "one sample": (nn.MultiheadAttention(8, 2, **double), lambda layer, x, y: itself(layer, x[0], y)),
        "more keys": (nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, **double), itself),
    }


@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("moves", ["input", "weights", "everything", "nothing", "one"])
def test_layers_of_attention(name, moves):
    layer, call = layers()[name]
    layer.eval()
    names = [one for one, _ in layer.named_parameters()]
    weights = [one.detach() + 0.1 * torch.randn_like(one) for one in layer.parameters()]

    def run(x, y, *values):
        return torch.func.functional_call(
            _Call(layer, call), dict(zip([f"layer.{one}" for one in names], values, strict=True)), (x, y)
        )

    choice = {
        "input": [True, True, *[False] * len(names)],
        "weights": [False, False, *[True] * len(names)],
        "everything": [True, True, *[True] * len(names)],
        "nothing": [False, False, *[False] * len(names)],
        "one": [False, False, True, *[False] * (len(names) - 1)],
    }[moves]
    # Outside of rules torch fuses whole layers.
    check(run, [numbers(2, 5, 8), numbers(2, 5, 8), *weights], tuple(choice), bitwise=False)


class _Call(nn.Module):
    def __init__(self, layer, call):
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, x, y):
        return self.call(self.layer, x, y)


def test_reduced_precision_follows_the_primal():
    x, w, b = torch.randn(3, 5, 8), torch.randn(6, 8), torch.randn(6)
    tangents = [torch.randn_like(one) for one in (x, w, b)]
    exact = evaluate(functional.linear, [x, w, b], tangents, rules=True)
    with torch.autocast("cpu", torch.bfloat16):
        value, tangent = evaluate(functional.linear, [x, w, b], tangents, rules=True)
    assert value.dtype == tangent.dtype == torch.bfloat16
    torch.testing.assert_close(tangent.float(), exact[1], rtol=0.05, atol=0.1)


def test_rules_hold_only_inside():
    """Outside, fused attention has no forward derivative."""
    parts = [torch.randn(2, 1, 5, 4) for _ in range(3)]
    with forward_mode.dual_level():
        duals = [forward_mode.make_dual(one, torch.ones_like(one)) for one in parts]
        with Rules():
            assert split(functional.scaled_dot_product_attention(*duals))[1] is not None
        with pytest.raises(NotImplementedError), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            functional.scaled_dot_product_attention(*duals)
    assert split(None) == (None, None)
