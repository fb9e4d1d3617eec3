"""What alignment comes to: mimic scores, and the weights that training makes of them."""

from typing import Literal

import torch

from chaffinch.scoring.alignment.sign import toward_reference

Form = Literal["raw", "standardised", "cosine"]
"""Of the scores that a batch is weighed by: as they are, z-standardised within the batch, or as cosines."""


def mimic_score(slopes: torch.Tensor, length: float) -> torch.Tensor:
    """Mimic scores of samples, from how their losses change along the way to the reference.

    Source: arXiv 2501.06708, section 3.1.

    Args:
        slopes: (n,) d/de loss(weights + e v) at e = 0.
        length: |v|, more than 0.

    Returns:
        (n,) float32, in units of loss per unit of weight; higher is better: a step on this sample moves the weights
        toward the reference, and below 0 away from it.
    """
    return toward_reference(slopes.float(), length)


def mimic_cosine(scores: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """The cosine of the angle between each sample's step and the way to the reference.

    Args:
        scores: (n,) mimic scores.
        gradients: (n,) lengths |g| over the same parameters.

    Returns:
        (n,) float32 in [-1, 1]; higher is better; 0 where the gradient is 0.
    """
    cosines = scores.float() / gradients.float()
    return torch.where(gradients == 0, torch.zeros_like(cosines), cosines).clamp(-1, 1)


def sample_weights(scores: torch.Tensor, temperature: float, standardise: bool) -> torch.Tensor:
    """Weights of a batch's samples in training: a softmax of their scores.

    Standardised scores make one temperature fit whatever the model and the length of its gradients.

    Source: arXiv 2501.06708, section 3.2; standardising within the batch is ours.

    Args:
        scores: (n,) mimic scores, or their cosines; those that are no finite number get no weight.
        temperature: more than 0; the lower, the more the best samples count.
        standardise: whether the batch's mean is taken off and its standard deviation brought to 1 before.

    Returns:
        (n,) float32, 0 or more, of sum 1. 1 / n each where no score is finite, or all are equal.
    """
    known = torch.isfinite(scores)
    usable = scores[known].float()
    if not len(usable):
        return torch.full_like(scores, 1 / max(len(scores), 1), dtype=torch.float32)
    if standardise:
        spread = usable.std(correction=0)
        usable = (usable - usable.mean()) / spread if spread > 0 else torch.zeros_like(usable)
    weights = torch.zeros_like(scores, dtype=torch.float32)
    weights[known] = torch.softmax(usable / temperature, dim=0)
    return weights
