"""Forward derivatives of the costly operations of transformers and convolutional networks, faster than torch's own.

torch derives a linear layer of three-dimensional input through batched products with weights that are copied for each
sample, and has no derivative for fused attention at all. Here both are written as the products that the derivative
needs and no others: W x, W x' and W' x for a layer. A whole ViT-B/32 takes three quarters of the time. What has no
tangent goes to the operation itself, fused or not; whatever else a model does, torch derives.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_mode
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Dual = torch.Tensor
"""A tensor that may carry a tangent of its own shape."""


class Rules(TorchFunctionMode):
    """While this is entered, within a `dual_level`, torch's layers follow the rules below."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        rule = _RULES.get(func, func)
        return rule(*args, **(kwargs or {}))


def split(value: torch.Tensor | None) -> tuple[Any, Any]:
    """Primal and tangent of a dual number, either of which may be None."""
    if value is None:
        return None, None
    dual = forward_mode.unpack_dual(value)  # type: ignore[no-untyped-call]
    return dual.primal, dual.tangent


def join(primal: torch.Tensor, tangent: torch.Tensor) -> Dual:
    """The dual number of a primal and a tangent of its shape."""
    dual: torch.Tensor = forward_mode.make_dual(primal, tangent)  # type: ignore[no-untyped-call]
    return dual


def linear(input: Dual, weight: Dual, bias: Dual | None = None) -> Dual:
    """As `torch.nn.functional.linear`: input W^T + b.

    Args:
        input: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs,) or None.

    Returns:
        (..., outputs).
    """
    (x, dx), (w, dw), (b, db) = split(input), split(weight), split(bias)
    if x.ndim < 2 or w.ndim < 2 or (dx is None and dw is None and db is None):
        return functional.linear(input, weight, bias)
    shape = (*x.shape[:-1], w.shape[0])
    rows = x.reshape(-1, x.shape[-1])
    primal = functional.linear(rows, w, b)
    terms = [(rows, dw)] if dw is not None else []
    terms += [(dx.reshape(rows.shape), w)] if dx is not None else []
    tangent = None if db is None else db.to(primal.dtype).expand(primal.shape)
    for left, right in terms:
        left, right = left.to(primal.dtype), right.to(primal.dtype).t()
        tangent = left @ right if tangent is None else torch.addmm(tangent, left, right)
    assert tangent is not None
    return join(primal.view(shape), tangent.reshape(shape))


def convolution(input: Dual, weight: Dual, bias: Dual | None = None, *args: Any, **kwargs: Any) -> Dual:
    """As `torch.nn.functional.conv2d`.

    Args:
        input: (n, channels, height, width), or without n.
        weight: (outputs, channels, rows, columns).
        bias: (outputs,) or None.
        args: stride, padding, dilation and groups.
        kwargs: the same by name.

    Returns:
        (n, outputs, height, width).
    """
    (x, dx), (w, dw), (b, db) = split(input), split(weight), split(bias)
    if dx is None and dw is None and db is None:
        return functional.conv2d(input, weight, bias, *args, **kwargs)
    primal = functional.conv2d(x, w, b, *args, **kwargs)
    terms = [(x, dw)] if dw is not None else []
    terms += [(dx, w)] if dx is not None else []
    tangent = torch.zeros_like(primal) if db is None else db.to(primal.dtype).view(-1, 1, 1).expand(primal.shape)
    for left, right in terms:
        tangent = tangent + functional.conv2d(left, right, None, *args, **kwargs).to(primal.dtype)
    return join(primal, tangent)


def group_norm(input: Dual, *args: Any, **kwargs: Any) -> Dual:
    """As `torch.nn.functional.group_norm`, whose own derivative fails where channels come last in memory.

    Args:
        input: (n, channels, ...).
        args: groups, weight, bias and epsilon.
        kwargs: the same by name.

    Returns:
        (n, channels, ...).
    """
    return functional.group_norm(input.contiguous(), *args, **kwargs)


def attention(
    query: Dual,
    key: Dual,
    value: Dual,
    attn_mask: Dual | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Dual:
    """As `torch.nn.functional.scaled_dot_product_attention`.

    With S = Q K^T and its softmax P, the tangent of P V is (P * S' - P * sum(P * S')) V + P V'.

    Args:
        query: (..., l, d).
        key: (..., k, d).
        value: (..., k, d).
        attn_mask: added to S where it holds numbers, which may move, as learnt biases of positions do; where it holds
            truths, false hides.
        dropout_p: more than 0 is left to torch.
        is_causal: whether later keys are hidden.
        scale: of S; 1 / sqrt(d) by default.
        enable_gqa: whether several heads of queries share one of keys and values.

    Returns:
        (..., l, d).
    """
    mask, dmask = split(attn_mask)
    if dropout_p or (dmask is None and all(split(one)[1] is None for one in (query, key, value))):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        key, value = (one.repeat_interleave(query.shape[-3] // one.shape[-3], dim=-3) for one in (key, value))
    groups = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])  # type: ignore[no-untyped-call]
    query, key, value = (one.expand(*groups, *one.shape[-2:]) for one in (query, key, value))
    parts = [split(one) for one in (query, key, value)]
    shape, wide = (*query.shape[:-1], value.shape[-1]), (*query.shape[:-1], key.shape[-2])
    flat = [
        (_matrices(primal), torch.zeros_like(primal).reshape_as(_matrices(primal)) if d is None else _matrices(d))
        for primal, d in parts
    ]
    (q, dq), (k, dk), (v, dv) = flat
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    q, dq = q * factor, dq * factor
    scores = q @ k.mT  # (batch, l, k)
    change = torch.baddbmm(dq @ k.mT, q, dk.mT)
    hidden = _additive(mask, is_causal, scores)
    if hidden is None:
        shares = scores.softmax(dim=-1)
    else:
        shares = (scores.view(wide) + hidden).softmax(dim=-1)
        nothing = (hidden == float("-inf")).all(dim=-1, keepdim=True)
        shares = shares.masked_fill(nothing, 0.0).view(scores.shape)  # torch gives zeros where all is hidden
    if dmask is not None:
        change = (change.view(wide) + dmask).view(scores.shape)
    change.mul_(shares)
    change -= shares * change.sum(dim=-1, keepdim=True)
    tangent = torch.baddbmm(shares @ dv, change, v)
    return join((shares @ v).view(shape), tangent.view(shape))


def heads(query: Dual, key: Dual, value: Dual, *args: Any, **kwargs: Any) -> tuple[Dual, Any]:
    """As `torch.nn.functional.multi_head_attention_forward`, which `nn.MultiheadAttention` calls.

    Its body would run with torch's own derivatives. What CLIPs ask for, the result without the weights, is done by the
    rules above; anything else is left to torch.

    Args:
        query: (l, n, d).
        key: (k, n, d).
        value: (k, n, d).
        args: as torch's function.
        kwargs: as torch's function.

    Returns:
        (l, n, outputs), and None for the weights.
    """
    given = dict(zip(_HEADS_ARGUMENTS[: len(args)], args, strict=True)) | kwargs
    moves = any(split(one)[1] is not None for one in (query, key, value, *given.values()) if torch.is_tensor(one))
    drops = given.get("training", True) and given.get("dropout_p", 0.0)
    rare = any(given.get(name) is not None for name in _RARE) or given.get("add_zero_attn")
    asked = given.get("need_weights", True)
    if not moves:
        return functional.multi_head_attention_forward(query, key, value, **given)
    if query.ndim != 3 or asked or drops or rare:
        # With weights it goes another way, without fused attention.
        mixed, shares = functional.multi_head_attention_forward(query, key, value, **(given | {"need_weights": True}))
        return mixed, shares if asked else None
    count, bias, mask = given["num_heads"], given["in_proj_bias"], given.get("attn_mask")
    if given.get("use_separate_proj_weight"):
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = list(given["in_proj_weight"].chunk(3))
    if query is key and key is value and not given.get("use_separate_proj_weight"):
        projected = list(linear(query, given["in_proj_weight"], bias).chunk(3, dim=-1))  # one product instead of three
    else:
        biases = [None] * 3 if bias is None else bias.chunk(3)
        projected = [linear(*parts) for parts in zip((query, key, value), weights, biases, strict=True)]
    split_up = [one.reshape(*one.shape[:2], count, -1).permute(1, 2, 0, 3) for one in projected]  # (n, heads, l, d)
    if mask is not None and mask.ndim == 3:
        mask = mask.view(query.shape[1], count, *mask.shape[1:])
    if mask is not None and mask.dtype == torch.bool:
        mask = ~mask  # it hides where it is true, attention's where it is false
    mixed = attention(split_up[0], split_up[1], split_up[2], mask)
    joined = mixed.permute(2, 0, 1, 3).reshape(*query.shape[:2], -1)
    return linear(joined, given["out_proj_weight"], given["out_proj_bias"]), None


_HEADS_ARGUMENTS = tuple(inspect.signature(functional.multi_head_attention_forward).parameters)[3:]
"""Names of those that follow query, key and value."""
_RARE = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
_RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.linear: linear,
    functional.conv2d: convolution,
    functional.group_norm: group_norm,
    functional.scaled_dot_product_attention: attention,
    functional.multi_head_attention_forward: heads,
}


def _additive(mask: torch.Tensor | None, is_causal: bool, scores: torch.Tensor) -> torch.Tensor | None:
    """What is added to scores so that what is hidden has no share."""
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device).masked_fill_(~mask, float("-inf"))
    return mask


def _matrices(values: torch.Tensor) -> torch.Tensor:
    """(..., rows, columns) as (batch, rows, columns)."""
    return values.reshape(-1, *values.shape[-2:])
