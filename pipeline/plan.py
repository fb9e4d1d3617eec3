"""The plan for emitting: which kept samples go into which output shard, from counts alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.cut import mix
from chaffinch.pipeline.shards import Shard

_ROUNDS = 4
# Shuffled outputs are written some at a time, so that each input shard is opened once for all of them.
_OUTPUTS_PER_BLOCK = 8


@dataclass(frozen=True)
class Plan:
    """Cuts the kept samples, in the order of the input or shuffled, into output shards of one size.

    Attributes:
        shards: input shards in order.
        kept: (s shards,) kept samples of each.
        size: samples in an output shard; the last one has the rest.
        shuffle_seed: a seed, or None for input order.
    """

    shards: Sequence[Shard]
    kept: Sequence[int]
    size: int
    shuffle_seed: int | None = None

    @property
    def total(self) -> int:
        """How many samples are kept."""
        return sum(self.kept)

    @property
    def sizes(self) -> list[int]:
        """Samples in each output shard."""
        return [min(self.size, self.total - start) for start in range(0, self.total, self.size)]

    def blocks(self) -> list["Block"]:
        """The units of work, each small however many samples there are."""
        step = 1 if self.shuffle_seed is None else _OUTPUTS_PER_BLOCK
        starts = np.concatenate([[0], np.cumsum(self.kept)]).tolist()
        sizes = self.sizes
        blocks = []
        for first in range(0, len(sizes), step):
            last = min(first + step, len(sizes))
            low, high = first * self.size, first * self.size + sum(sizes[first:last])
            inputs = tuple(
                Input(shard, start)
                for shard, start, end in zip(self.shards, starts[:-1], starts[1:], strict=True)
                if end > start and (self.shuffle_seed is not None or (start < high and end > low))
            )
            blocks.append(Block(first, tuple(sizes[first:last]), low, self.total, self.shuffle_seed, inputs))
        return blocks


@dataclass(frozen=True)
class Input:
    """An input shard and the position of its first kept sample among all kept samples in input order."""

    shard: Shard
    start: int


@dataclass(frozen=True)
class Block:
    """Output shards that are written together.

    Attributes:
        first: number of the first output shard.
        sizes: samples in each output shard.
        low: position of the first sample in output order.
        total: all kept samples.
        shuffle_seed: a seed, or None for input order.
        inputs: input shards that hold any of the samples.
    """

    first: int
    sizes: tuple[int, ...]
    low: int
    total: int
    shuffle_seed: int | None
    inputs: tuple[Input, ...]

    def sources(self) -> np.ndarray:
        """(n,) for every sample of the block in output order, its position in input order."""
        positions = np.arange(self.low, self.low + sum(self.sizes))
        return positions if self.shuffle_seed is None else shuffle(positions, self.total, self.shuffle_seed)


def shuffle(positions: np.ndarray, total: int, seed: int) -> np.ndarray:
    """A seeded permutation of 0..total-1 that is computed for any positions without the rest.

    Args:
        positions: (n,) integers below `total`.
        total: how many there are.
        seed: any integer.

    Returns:
        (n,) int64, distinct for distinct positions.

    Source: a balanced Feistel network with cycle walking, Black and Rogaway 2002, "Ciphers with Arbitrary Finite
        Domains".
    """
    half = max(1, -(-(total - 1).bit_length() // 2))
    mask = np.uint64((1 << half) - 1)
    keys = mix(np.arange(_ROUNDS, dtype=np.uint64) + mix(np.array([seed % (1 << 64)], np.uint64)))
    values = np.asarray(positions).astype(np.uint64)
    outside = np.ones(len(values), bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        values[outside] = (left << np.uint64(half)) | right
        # The network permutes a power of four; values beyond the end walk on until they come back inside.
        outside = values >= np.uint64(total)
    return values.astype(np.int64)
