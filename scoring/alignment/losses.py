"""Losses of single samples: what a model would pay for each, whether or not others are in its batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

Loss = Literal["contrastive", "sigmoid"]


@dataclass(frozen=True)
class Logits:
    """How a model turns cosines into logits.

    Attributes:
        scale: () what they are multiplied by, the inverse of the temperature.
        bias: () what is added, of models trained with the sigmoid loss; None otherwise.
    """

    scale: torch.Tensor
    bias: torch.Tensor | None = None

    def of(self, cosines: torch.Tensor) -> torch.Tensor:
        """Logits of any cosines."""
        scaled = cosines * self.scale
        return scaled if self.bias is None else scaled + self.bias


def against_bank(
    pictures: torch.Tensor,
    captions: torch.Tensor,
    bank_pictures: torch.Tensor,
    bank_captions: torch.Tensor,
    hidden: torch.Tensor,
    logits: Logits,
) -> torch.Tensor:
    """Each pair's own loss among fixed negatives, so that it does not depend on the other pairs of a batch.

    Contrastive, for models without a bias: half the cross-entropy of finding the caption among those of the bank, and
    half that of finding the picture. Sigmoid, for models with one: that of the pair, and half the sum over the bank's
    captions and half that over its pictures.

    Source: arXiv 2103.00020, figure 3, and Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training, arXiv
        2303.15343, equation 1; negatives from a bank instead of the batch are ours.

    Args:
        pictures: (n, d) unit vectors.
        captions: (n, d) unit vectors.
        bank_pictures: (k, d) unit vectors.
        bank_captions: (k, d) unit vectors.
        hidden: (n, k) whether a pair of the bank is no negative of a sample: itself, or one that says the same.
        logits: of the model.

    Returns:
        (n,) float32, nats, 0 or more; lower is better.
    """
    own = logits.of((pictures * captions).sum(dim=1))  # (n,)
    others = [logits.of(pictures @ bank_captions.T), logits.of(captions @ bank_pictures.T)]  # (n, k) each
    if logits.bias is None:
        rows = [torch.cat([own[:, None], one.masked_fill(hidden, float("-inf"))], dim=1) for one in others]
        return torch.stack([row.logsumexp(dim=1) - own for row in rows]).mean(dim=0)
    wrong = [functional.softplus(one).masked_fill(hidden, 0.0).sum(dim=1) for one in others]
    return functional.softplus(-own) + torch.stack(wrong).mean(dim=0)


def within_batch(pictures: torch.Tensor, captions: torch.Tensor, logits: Logits) -> torch.Tensor:
    """Each pair's share of a batch's loss; their mean is the loss that CLIP and SigLIP are trained with.

    Args:
        pictures: (n, d) unit vectors.
        captions: (n, d) unit vectors.
        logits: of the model.

    Returns:
        (n,) float32, nats; lower is better.
    """
    table = logits.of(pictures @ captions.T)  # (n, n)
    if logits.bias is None:
        own = table.diagonal()
        return torch.stack([table.logsumexp(dim=1) - own, table.logsumexp(dim=0) - own]).mean(dim=0)
    signs = 2 * torch.eye(len(table), dtype=table.dtype, device=table.device) - 1
    each = functional.softplus(-signs * table)
    return torch.stack([each.sum(dim=1), each.sum(dim=0)]).mean(dim=0)


def classification(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each sample's label.

    Args:
        outputs: (n, c) logits of c classes.
        labels: (n,) int64.

    Returns:
        (n,) float32, nats; lower is better.
    """
    return functional.cross_entropy(outputs.float(), labels, reduction="none")
