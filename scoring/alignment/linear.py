"""Mimic scores of a linear head over stored embeddings, in closed form: two matrix products for all samples."""

import math
from dataclasses import dataclass

import numpy as np

from chaffinch.scoring.alignment.sign import toward_reference
from chaffinch.scoring.head_weights import Layer


@dataclass(frozen=True)
class HeadAlignment:
    """What was measured of n samples; (n,) float64 each, NaN where a sample has no label or an embedding no number.

    Attributes:
        mimic_score: nats per unit of weight; higher is better.
        mimic_cosine: of the angle between the sample's step and the way to the reference, in [-1, 1]; higher is better;
            0 where the gradient is 0.
        loss: cross-entropy of the current head, nats, 0 or more; lower is better.
        reference_loss: the same of the reference.
    """

    mimic_score: np.ndarray
    mimic_cosine: np.ndarray
    loss: np.ndarray
    reference_loss: np.ndarray


def align_head(embeddings: np.ndarray, labels: np.ndarray, current: Layer, reference: Layer) -> HeadAlignment:
    """Measures how far learning labelled embeddings would carry a linear classifier toward a reference.

    The gradient of the cross-entropy is g = (p - y) (h, 1)' with p the probabilities, y the label as a unit vector and
    h the embedding. So with V and v_b the reference's weights and biases less the current ones

        s = (y - p) . (V h + v_b) / |(V, v_b)|    and    |g| = |p - y| sqrt(|h|^2 + 1).

    A head of one output is a logistic regression: p is its sigmoid, y is 0 or 1. A bias counts where either head has
    one that is not 0; without, the 1 under the root is left out.

    Source: the score, arXiv 2501.06708, section 3.1; the closed form is ours.

    Args:
        embeddings: (n, d) floats.
        labels: (n,) whole numbers: from 0 to c - 1, 0 or 1 for a head of one output, less than 0 for no label.
        current: weights (c, d) and biases (c,).
        reference: likewise.

    Returns:
        Scores and losses, computed in float64.

    Raises:
        ValueError: the heads do not fit each other or the embeddings, or are equal; a label is beyond the head's.
    """
    check_heads(current, reference)
    (weight, bias), rows = current, np.asarray(embeddings, np.float64)
    if rows.ndim != 2 or rows.shape[1] != weight.shape[1]:
        raise ValueError(f"embeddings have the shape {rows.shape}: the heads take (n, {weight.shape[1]})")
    labels = np.asarray(labels)
    if labels.shape != (len(rows),) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype} {labels.shape}: give {len(rows)} whole numbers")
    classes = max(len(bias), 2)
    if (labels >= classes).any():
        raise ValueError(
            f"label {labels.max()} is beyond the head, which tells {classes} classes apart: number them from 0, in the "
            "order in which the head was trained"
        )
    known = (labels >= 0) & np.isfinite(rows).all(axis=1)
    rows, labels = rows[known], labels[known].astype(np.int64)
    outputs, target = rows @ weight.T + bias, rows @ reference[0].T + reference[1]
    residuals, loss = _judge(outputs, labels)
    reference_loss = _judge(target, labels)[1]
    # What the reference gives less what the head gives is V h + v_b.
    slopes = (residuals * (target - outputs)).sum(axis=1)
    scores = toward_reference(slopes, _distance(current, reference))
    biased = float(bias.any() or reference[1].any())
    gradients = np.linalg.norm(residuals, axis=1) * np.sqrt((rows**2).sum(axis=1) + biased)
    cosines = np.divide(scores, gradients, out=np.zeros_like(scores), where=gradients > 0).clip(-1, 1)
    measured = []
    for values in (scores, cosines, loss, reference_loss):
        column = np.full(len(known), np.nan)
        column[known] = values
        measured.append(column)
    return HeadAlignment(*measured)


def check_heads(current: Layer, reference: Layer) -> None:
    """Refuses heads between which there is no way.

    Unlike deeper networks, heads over the same embeddings need no common lineage: their losses are convex.

    Args:
        current: weights (c, d) and biases (c,).
        reference: likewise.

    Raises:
        ValueError: they have different shapes, hold what is no finite number, or are equal.
    """
    for name, here, there in zip(("weights", "biases"), current, reference, strict=True):
        if here.shape != there.shape:
            raise ValueError(
                f"{name} have the shape {list(here.shape)} in the current head and {list(there.shape)} in the "
                "reference: both have to tell the same classes apart by the same embedding"
            )
        for whose, values in (("current head", here), ("reference", there)):
            if not np.isfinite(values).all():
                raise ValueError(f"the {whose} has {name} that are no finite numbers: take another file")
    if _distance(current, reference) == 0:
        raise ValueError(
            "reference and current head are equal: there is no way between them; name a reference that was trained "
            "for longer, or on cleaner labels"
        )


def _distance(current: Layer, reference: Layer) -> float:
    """|(V, v_b)|."""
    return math.hypot(*(float(np.linalg.norm(there - here)) for here, there in zip(current, reference, strict=True)))


def _judge(outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals p - y, (n, outputs), and cross-entropies, (n,).

    Neither is a difference of nearly equal numbers, so that both keep their digits where the head is sure and right.
    """
    if outputs.shape[1] == 1:
        signs = 2.0 * labels - 1
        margins = signs * outputs[:, 0]
        loss = np.logaddexp(0, -margins)
        return -signs[:, None] * np.exp(-margins - loss)[:, None], loss
    at = np.arange(len(labels)), labels
    margins = outputs - outputs[at][:, None]  # of the other classes over the label's
    margins[at] = -np.inf
    top = np.maximum(margins.max(axis=1), 0)
    others = np.exp(margins - top[:, None])
    total = others.sum(axis=1)
    loss = np.where(top > 0, top + np.log(np.exp(-top) + total), np.log1p(total))
    residuals = others * np.exp(top - loss)[:, None]
    residuals[at] = -residuals.sum(axis=1)
    return residuals, loss
