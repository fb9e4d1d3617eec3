"""Training of the two heads: pictures and captions of trusted pairs told apart from one another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from chaffinch.scoring.light.checkpoint import Model, load_checkpoint
from chaffinch.scoring.light.heads import Heads, Size
from chaffinch.scoring.light.recipe import LightRecipe
from chaffinch.scoring.light.vocabulary import UNKNOWN, Vocabulary


@dataclass(frozen=True)
class Pairs:
    """What the heads learn from, n pictures.

    Attributes:
        features: (n, d) float32.
        captions: (n,) one caption or more for each.
    """

    features: np.ndarray
    captions: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        epoch: from 1.
        loss: mean over its steps, nats.
        learning_rate: of its last step.
        complete: whether it saw all whole batches; the last one may be cut short.
    """

    epoch: int
    loss: float
    learning_rate: float
    complete: bool


class LightTrainer:
    """Trains heads on pairs; the same pairs, recipe and number of threads give the same weights to the bit.

    The loss is CLIP's: in a batch every picture has to tell its caption from the others, and every caption its
    picture. Of several captions each visit draws one. Some words are hidden, so that unknown words mean something.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv
        2103.00020, section 2.3, for the loss.
    """

    def __init__(self, recipe: LightRecipe, pairs: Pairs, first: Model | None = None) -> None:
        """Builds the heads.

        Args:
            recipe: the settings.
            pairs: at least two.
            first: what `first_heads` gave for the recipe: heads to go on from. They are not changed.

        Raises:
            ValueError: there are fewer, or no caption has a word; their features are not those of the first heads.
        """
        if len(pairs) < 2:
            raise ValueError(f"{len(pairs)} usable pairs are too few: a picture is learnt by telling it from others")
        self._recipe, self._pairs = recipe, pairs
        self.vocabulary, self.heads = _draw(recipe, pairs) if first is None else _copy(recipe, pairs, first)
        self.steps = recipe.steps(len(pairs))

    def run(self) -> Iterator[Epoch]:
        """Trains to the end.

        Yields:
            What each epoch came to; meanwhile `heads` has the weights of its end.
        """
        recipe, heads = self._recipe, self.heads
        optimiser = torch.optim.AdamW(
            heads.groups(recipe.weight_decay), lr=recipe.learning_rate, betas=recipe.betas, foreach=False
        )
        rng = np.random.default_rng(recipe.seed)
        batch = recipe.batch(len(self._pairs))
        heads.train()
        with torch.random.fork_rng(devices=[]):  # dropout draws from torch's own generator
            torch.manual_seed(recipe.seed)
            step, epoch = 0, 0
            while step < self.steps:
                losses = []
                order = rng.permutation(len(self._pairs))
                epoch += 1
                for start in range(0, len(order) - batch + 1, batch):
                    for group in optimiser.param_groups:
                        group["lr"] = recipe.rate(step, self.steps)
                    loss = self._loss(order[start : start + batch], rng)
                    optimiser.zero_grad()
                    torch.autograd.backward(loss)
                    optimiser.step()
                    heads.limit_scale()
                    losses.append(float(loss.detach()))
                    step += 1
                    if step == self.steps:
                        break
                complete = len(losses) == len(order) // batch
                yield Epoch(epoch, float(np.mean(losses)), recipe.rate(step - 1, self.steps), complete)
        heads.eval()

    def _loss(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        captions = [self._pairs.captions[row] for row in rows.tolist()]
        drawn = [texts[int(rng.integers(len(texts)))] for texts in captions]
        numbers, starts = self.vocabulary.numbers(drawn)
        numbers[rng.random(len(numbers)) < self._recipe.hidden_words] = UNKNOWN
        pictures = self.heads.embed_pictures(torch.from_numpy(self._pairs.features[rows]))
        texts = self.heads.embed_captions(torch.from_numpy(numbers), torch.from_numpy(starts))
        logits = self.heads.logit_scale.exp() * pictures @ texts.T
        right = torch.arange(len(rows))
        return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def first_heads(recipe: LightRecipe) -> Model | None:
    """The heads that a recipe goes on from.

    Args:
        recipe: the settings.

    Returns:
        Those that `pretrained` names; None where it names none.

    Raises:
        ValueError: the file is missing, damaged, or holds other weights; or heads of another size.
    """
    path = recipe.pretrained_path()
    if path is None:
        return None
    first = load_checkpoint(path)
    for name, wanted in (("hidden", recipe.hidden), ("dimensions", recipe.dimensions)):
        if getattr(first.heads.size, name) != wanted:
            raise ValueError(f"{name} is {wanted}, and {getattr(first.heads.size, name)} in pretrained: say so here")
    return first


def _draw(recipe: LightRecipe, pairs: Pairs) -> tuple[Vocabulary, Heads]:
    """The words of the pairs, and heads with first weights that are drawn."""
    vocabulary = Vocabulary.of((text for texts in pairs.captions for text in texts), recipe.least_count)
    if len(vocabulary) == 1:
        raise ValueError(f"no word occurs in {recipe.least_count} captions: lower train.least_count")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        heads = Heads(Size(pairs.features.shape[1], len(vocabulary), recipe.hidden, recipe.dimensions), recipe.dropout)
    heads.standardise(torch.from_numpy(pairs.features))
    return vocabulary, heads


def _copy(recipe: LightRecipe, pairs: Pairs, first: Model) -> tuple[Vocabulary, Heads]:
    """The words and the weights of trained heads."""
    if first.features != pairs.features.shape[1]:
        raise ValueError(
            f"pretrained reads {first.features} features, and {recipe.features} has {pairs.features.shape[1]}: "
            "name heads that were trained with this detector"
        )
    heads = Heads(first.heads.size, recipe.dropout)
    heads.load_state_dict(first.heads.state_dict())
    return first.vocabulary, heads
