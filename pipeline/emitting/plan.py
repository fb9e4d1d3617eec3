"""The plan for emitting: which kept samples go into which output shard, from counts alone.

Samples that are taken down keep their places in the plan, and the places stay empty: all others stay where they are.
"""

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
        placed: (s shards,) samples of each that have a place: those kept, and those taken down that were to be kept.
        size: places in an output shard; the last one has the rest.
        shuffle_seed: a seed, or None for input order.
        taken_down: (s shards,) how many of the places of each stay empty; none by default.
    """

    shards: Sequence[Shard]
    placed: Sequence[int]
    size: int
    shuffle_seed: int | None = None
    taken_down: Sequence[int] = ()

    @property
    def places(self) -> int:
        """How many places there are."""
        return sum(self.placed)

    @property
    def total(self) -> int:
        """How many samples are emitted."""
        return self.places - sum(self.taken_down)

    @property
    def sizes(self) -> list[int]:
        """Places in each output shard."""
        return [min(self.size, self.places - start) for start in range(0, self.places, self.size)]

    def blocks(self) -> list["Block"]:
        """The units of work, each small however many samples there are."""
        step = 1 if self.shuffle_seed is None else _OUTPUTS_PER_BLOCK
        starts = np.concatenate([[0], np.cumsum(self.placed)]).tolist()
        empty = self.taken_down or [0] * len(self.shards)
        sizes = self.sizes
        blocks = []
        for first in range(0, len(sizes), step):
            last = min(first + step, len(sizes))
            low, high = first * self.size, first * self.size + sum(sizes[first:last])
            inputs = tuple(
                Input(shard, start, taken_down)
                for shard, start, end, taken_down in zip(self.shards, starts[:-1], starts[1:], empty, strict=True)
                if end > start and (self.shuffle_seed is not None or (start < high and end > low))
            )
            blocks.append(Block(first, tuple(sizes[first:last]), low, self.places, self.shuffle_seed, inputs))
        return blocks


@dataclass(frozen=True)
class Input:
    """An input shard that samples are taken from.

    Attributes:
        shard: the shard.
        start: position of its first place among all places in input order.
        taken_down: how many of its places stay empty.
    """

    shard: Shard
    start: int
    taken_down: int = 0


@dataclass(frozen=True)
class Block:
    """Output shards that are written together.

    Attributes:
        first: number of the first output shard.
        sizes: places in each output shard.
        low: position of the first place in output order.
        total: all places.
        shuffle_seed: a seed, or None for input order.
        inputs: input shards whose samples have any of the places.
    """

    first: int
    sizes: tuple[int, ...]
    low: int
    total: int
    shuffle_seed: int | None
    inputs: tuple[Input, ...]

    def sources(self) -> np.ndarray:
        """(n,) for every place of the block in output order, its position in input order."""
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
