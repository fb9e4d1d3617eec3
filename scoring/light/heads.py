"""The two heads: a picture from a detector's features, a caption from a gated bag of its words."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_LARGEST_LOGIT_SCALE = math.log(100.0)


@dataclass(frozen=True)
class Size:
    """How large the heads are.

    Attributes:
        features: d of what they read of a picture.
        words: size v of the vocabulary, the unknown word included.
        hidden: width of the picture head's hidden layer.
        dimensions: length of the embeddings.
    """

    features: int
    words: int
    hidden: int = 512
    dimensions: int = 256


class Heads(nn.Module):
    """Two heads whose embeddings, unit vectors, have the cosine that says whether picture and caption belong together.

    A picture: its features, standardised as the training pictures were, through one hidden layer. A caption: the mean
    of its words' vectors, each weighed by a gate of the word's own, so that "a" and "the" need not count; then a
    linear map. There is nothing in place and no buffer that changes with use, so that derivatives in either direction
    go through.
    """

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, size: Size, dropout: float = 0.0) -> None:
        """Draws first weights from torch's generator.

        Args:
            size: how large.
            dropout: share of features and hidden values that are left out in training.
        """
        super().__init__()
        self.size = size
        self.register_buffer("centre", torch.zeros(size.features))
        self.register_buffer("spread", torch.ones(size.features))
        self.picture = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(size.features, size.hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(size.hidden, size.dimensions),
        )
        self.words = nn.Embedding(size.words, size.dimensions)
        self.gates = nn.Embedding(size.words, 1)
        self.caption = nn.Linear(size.dimensions, size.dimensions)
        self.logit_scale = nn.Parameter(torch.tensor(10.0).log())
        nn.init.zeros_(self.gates.weight)

    def standardise(self, features: torch.Tensor) -> None:
        """Takes mean and standard deviation of (n, features) float32 as those of all pictures."""
        self.centre.copy_(features.mean(dim=0))
        # What hardly varies among the training pictures must not decide about others.
        self.spread.copy_(features.std(dim=0, correction=0).clamp(min=1e-3))

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters for an optimiser: matrices decay; biases, gates and the scale do not."""
        matrices = [weight for name, weight in self.named_parameters() if weight.ndim > 1 and name != "gates.weight"]
        known = set(map(id, matrices))
        others = [weight for weight in self.parameters() if id(weight) not in known]
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]

    def embed_pictures(self, features: torch.Tensor) -> torch.Tensor:
        """(n, dimensions) unit vectors of (n, features) float32."""
        standard = ((features - self.centre) / self.spread).clamp(-8, 8)
        return functional.normalize(self.picture(standard), dim=-1)

    def embed_captions(self, numbers: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Embeds n captions.

        Args:
            numbers: (w,) int64 numbers of their words.
            starts: (n,) int64 where each begins; every caption has a word.

        Returns:
            (n, dimensions) unit vectors.
        """
        ends = torch.cat([starts[1:], starts.new_tensor([len(numbers)])])
        owners = torch.repeat_interleave(torch.arange(len(starts)), ends - starts)
        gates = functional.softplus(self.gates(numbers))  # (w, 1)
        empty = gates.new_zeros(len(starts), 1)
        total = empty.index_add(0, owners, gates)
        bag = empty.expand(-1, self.size.dimensions).index_add(0, owners, gates * self.words(numbers)) / total
        return functional.normalize(self.caption(bag), dim=-1)

    def limit_scale(self) -> None:
        """Brings what cosines are multiplied by, the exponential of logit_scale, down to 100 where a step led above."""
        with torch.no_grad():
            self.logit_scale.clamp_(max=_LARGEST_LOGIT_SCALE)
