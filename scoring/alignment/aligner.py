"""A CLIP, its reference and a bank of negatives, loaded: pairs in, mimic scores and losses out."""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from chaffinch.scoring.alignment.derivatives import Carried, Derivative, Method, Tensors, differentiate, gradient_length
from chaffinch.scoring.alignment.direction import check_lineage, find_direction, own_state
from chaffinch.scoring.alignment.losses import Logits, against_bank
from chaffinch.scoring.alignment.negatives import Negative, caption_key
from chaffinch.scoring.alignment.scores import mimic_cosine, mimic_score
from chaffinch.scoring.alignment.towers import Towers

_log = logging.getLogger(__name__)

_BATCH = 32
_WATCHED = 512
"""How many samples of the pool are compared with the bank before a current model is suspected."""


@dataclass(frozen=True)
class Pairs:
    """Pairs, ready for the networks.

    Attributes:
        pictures: (n,) what the model's `transform` made of each.
        tokens: (n, t) what the model's `tokenise` made of their captions.
        hidden: (n, k) which of the bank are no negatives of theirs.
    """

    pictures: Sequence[Any]
    tokens: Any
    hidden: torch.Tensor


@dataclass(frozen=True)
class Alignment:
    """What was measured of n pairs at t steps.

    Attributes:
        mimic_score: (n, t) float32.
        mimic_cosine: (n, t) float32; None where it was not asked for.
        loss: (n, t) float32, of the current models.
        similarity: (n, t) float32, of the current models.
        reference_loss: (n,) float32.
        reference_similarity: (n,) float32.
    """

    mimic_score: np.ndarray
    mimic_cosine: np.ndarray | None
    loss: np.ndarray
    similarity: np.ndarray
    reference_loss: np.ndarray
    reference_similarity: np.ndarray


@dataclass
class _Watch:
    """Compares the losses of pool and bank, once."""

    losses: list[float] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True)
class _Step:
    """A current model: its derivative toward the reference, and the bank's embeddings, which move with the weights.

    Those that stand still are for cosines: a gradient through the whole bank for every sample would cost k times more.
    """

    derivative: Derivative
    bank: Carried
    still: Tensors


class Aligner:
    """Measures pairs with t current models against one reference.

    It holds t + 1 sets of weights and t differences, and the bank's embeddings with their tangents.

    Attributes:
        model: prepares pictures and captions; the same for all checkpoints.
    """

    def __init__(
        self,
        current: Sequence[Towers],
        names: Sequence[str],
        reference: Towers,
        negatives: Sequence[Negative],
        layers: Sequence[str],
        method: Method,
    ) -> None:
        """Finds the ways and embeds the bank.

        Args:
            current: the current models, at least one, of one architecture; only the first is kept, and the others'
                weights.
            names: what to call each of them in messages.
            reference: of the same architecture.
            negatives: the bank.
            layers: which parameters count, as for `find_direction`.
            method: of differentiation.

        Raises:
            ValueError: a pair of checkpoints does not fit.
        """
        self.model = current[0]
        self._reference = reference
        self._bank = len(negatives)
        self._saying, self._called = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        for column, negative in enumerate(negatives):
            self._saying[caption_key(negative.caption)].append(column)
            if negative.uid is not None:
                self._called[negative.uid].append(column)
        pictures = [self.model.transform(negative.picture) for negative in negatives]
        tokens = self.model.tokenise([negative.caption for negative in negatives])
        own = self._hidden([negative.uid for negative in negatives], [negative.caption for negative in negatives])
        everything = Pairs(pictures, tokens, own)
        network = self.model.network
        target = own_state(network, reference.network.state_dict())
        with self.model.arithmetic(), torch.no_grad():
            self._known = _embed(reference, everything)
            reference_loss = float(_bank_losses(reference, self._known, own).mean())
        self._steps: list[_Step] = []
        self._trusted: list[tuple[float, float]] = []
        for model, name in zip(current, names, strict=True):
            state = own_state(network, model.network.state_dict())
            try:
                direction = find_direction(network, state, target, layers)
                check_lineage(network, state, target)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            derivative = differentiate(method, network, state, direction)
            with self.model.arithmetic():
                bank = _carry(derivative, self.model, everything)
                step = _Step(derivative, bank, derivative.values(bank))
                losses = derivative.evaluate(lambda known: (_bank_losses(self.model, known, own),), bank)[0][0]
            self._steps.append(step)
            self._trusted.append((float(losses.mean()), float(losses.std()) / math.sqrt(len(losses))))
            if reference_loss >= self._trusted[-1][0]:
                _log.warning(
                    "the reference is no better than %s on the negatives (loss %.3f against %.3f): mimic scores would "
                    "lead to a worse model; take a reference that was trained for longer or on cleaner pairs",
                    name,
                    reference_loss,
                    self._trusted[-1][0],
                )
        self._names = list(names)
        self._watches = [_Watch() for _ in names]

    def measure(self, uids: Sequence[str], captions: Sequence[str], pictures: Sequence[Any], cosine: bool) -> Alignment:
        """Measures n pairs; alone or in a batch the same to 1e-5 (float32, cpu).

        Args:
            uids: (n,) so that no sample is its own negative.
            captions: (n,) texts.
            pictures: (n,) what the model's `transform` made of each.
            cosine: whether to measure the lengths of the gradients too: a backward pass for each sample and step.

        Returns:
            Scores and losses.
        """
        pairs = Pairs(pictures, self.model.tokenise(captions), self._hidden(uids, captions))
        columns: list[list[torch.Tensor]] = [[], [], [], []]
        with self.model.arithmetic():
            with torch.no_grad():
                expected = _judge(self._reference, pairs, self._known)
            for number, step in enumerate(self._steps):
                (losses, similarity, _), (slopes, _, still) = _differentiate(step, self.model, pairs)
                length = step.derivative.direction.length
                columns[0].append(mimic_score(slopes, length))
                if cosine:
                    columns[1].append(mimic_cosine(mimic_score(still, length), self._gradient_lengths(step, pairs)))
                columns[2].append(losses)
                columns[3].append(similarity)
                self._watch(number, losses)
        scores, cosines, lost, similarities = (
            torch.stack(column, dim=1).float().cpu().numpy() if column else None for column in columns
        )
        assert scores is not None
        assert lost is not None
        assert similarities is not None
        return Alignment(scores, cosines, lost, similarities, *(one.float().cpu().numpy() for one in expected))

    def _gradient_lengths(self, step: _Step, pairs: Pairs) -> torch.Tensor:
        """(n,) lengths of the gradients of losses among a bank that stands still, one sample after the other."""
        names = list(step.derivative.direction.tensors)

        def length(row: int) -> torch.Tensor:
            one = Pairs(pairs.pictures[row : row + 1], pairs.tokens[row : row + 1], pairs.hidden[row : row + 1])
            state = step.derivative.state
            return gradient_length(self.model.network, state, names, lambda: _judge(self.model, one, step.still)[0])

        return torch.stack([length(row) for row in range(len(pairs.pictures))])

    def _hidden(self, uids: Sequence[str | None], captions: Sequence[str]) -> torch.Tensor:
        """(n, k) whether a pair of the bank is the sample itself, or has its caption."""
        hidden = torch.zeros(len(uids), self._bank, dtype=torch.bool)
        for row, (uid, caption) in enumerate(zip(uids, captions, strict=True)):
            hidden[row, self._saying.get(caption_key(caption), [])] = True
            hidden[row, self._called.get(uid, []) if uid else []] = True
        return hidden.to(self.model.device)

    def _watch(self, number: int, losses: torch.Tensor) -> None:
        """Warns, once for each current model, where it fits the pool better than the trusted pairs of the bank."""
        watch = self._watches[number]
        if watch.done:
            return
        watch.losses += losses.tolist()
        if len(watch.losses) < _WATCHED:
            return
        watch.done = True
        seen = np.array(watch.losses)
        mean, error = self._trusted[number]
        if mean - seen.mean() > 3 * math.hypot(error, seen.std() / math.sqrt(len(seen))):
            _log.warning(
                "%s fits the pool better than the negatives (loss %.3f against %.3f): it may have memorised the pool, "
                "noise and all, and mimic scores fail there; take an earlier checkpoint",
                self._names[number],
                seen.mean(),
                mean,
            )


def _judge(model: Towers, pairs: Pairs, bank: Tensors) -> Tensors:
    """Losses among the bank and similarities of n pairs, (n,) each."""
    pictures, captions = model.encode_pictures(pairs.pictures), model.encode_captions(pairs.tokens)
    with _exact(model):
        similarity = (pictures * captions).sum(dim=1)
        return against_bank(pictures, captions, bank[0], bank[1], pairs.hidden, _logits(model)), similarity


def _differentiate(step: _Step, model: Towers, pairs: Pairs) -> tuple[Tensors, Tensors]:
    """Losses, similarities, and losses among a bank that stands still, (n,) each; and their slopes."""

    def judge(bank: Tensors) -> Tensors:
        pictures, captions = model.encode_pictures(pairs.pictures), model.encode_captions(pairs.tokens)
        with _exact(model):
            logits, similarity = _logits(model), (pictures * captions).sum(dim=1)
            losses = [
                against_bank(pictures, captions, one[0], one[1], pairs.hidden, logits) for one in (bank, step.still)
            ]
            return losses[0], similarity, losses[1]

    return step.derivative.evaluate(judge, step.bank)


def _embed(model: Towers, pairs: Pairs) -> Tensors:
    """(k, d) embeddings of pictures and of captions, a batch at a time."""
    parts = [
        (
            model.encode_pictures(pairs.pictures[start : start + _BATCH]),
            model.encode_captions(pairs.tokens[start : start + _BATCH]),
        )
        for start in range(0, len(pairs.pictures), _BATCH)
    ]
    pictures, captions = zip(*parts, strict=True)
    return torch.cat(pictures), torch.cat(captions)


def _bank_losses(model: Towers, bank: Tensors, own: torch.Tensor) -> torch.Tensor:
    """(k,) losses of the bank's pairs among the others, from their embeddings."""
    with _exact(model):
        return against_bank(bank[0], bank[1], bank[0], bank[1], own, _logits(model))


def _carry(derivative: Derivative, model: Towers, pairs: Pairs) -> Carried:
    """The embeddings of a bank and how they move."""
    return derivative.carry(lambda _: _embed(model, pairs))


def _logits(model: Towers) -> Logits:
    """With the scale and bias of the network as it is at the moment, which may be dual numbers."""
    network = model.network
    bias = getattr(network, "logit_bias", None)
    return Logits(network.logit_scale.exp().reshape(()), None if bias is None else bias.reshape(()))


def _exact(model: Towers) -> torch.autocast:
    """float32, whatever the precision of the networks."""
    return torch.autocast(model.device, enabled=False)
