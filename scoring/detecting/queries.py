"""What OWL-ViT, OWLv2 and OmDet-Turbo have in common: a picture is asked for phrases, each by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chaffinch.scoring.detecting.phrases import find_phrases, normalise

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Queries:
    """A prompt.

    Attributes:
        phrases: (p,) the caption's noun phrases, or the vocabulary.
    """

    phrases: tuple[str, ...]


def read_queries(captions: Sequence[str]) -> list[Queries]:
    """The noun phrases of n captions."""
    return [Queries(tuple(phrase.text for phrase in find_phrases(normalise(caption)))) for caption in captions]


def tokenise(tokenizer: Any, texts: Sequence[str], length: int, device: Any) -> dict[str, "torch.Tensor"]:
    """Token ids and attention mask, (n, length) each: padded and cut to a fixed length."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}


def line_up(prompts: Sequence[Queries]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Lists the different phrases of n prompts, so that each is encoded once.

    Args:
        prompts: (n,) of at least one phrase each.

    Returns:
        The u phrases; which of them each prompt asks for, (n, p) int64, shorter prompts filled up with their first
        phrase again; and how many are asked for in earnest, (n,).
    """
    order = {phrase: number for number, phrase in enumerate(dict.fromkeys(p for one in prompts for p in one.phrases))}
    counts = np.array([len(one.phrases) for one in prompts])
    which = np.empty((len(prompts), counts.max()), np.int64)
    for row, one in enumerate(prompts):
        which[row] = order[one.phrases[0]]
        which[row, : len(one.phrases)] = [order[phrase] for phrase in one.phrases]
    return list(order), which, counts
