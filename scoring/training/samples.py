"""Samples by their number, and batches of them: read, decoded and augmented ahead of the model by a few threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import SampleError

# Enough to keep a model fed, few enough to keep memory flat.
_BATCHES_AHEAD = 2


class Samples(Protocol):
    """What training and evaluation read: n pairs, by their number from 0. Several threads ask at a time."""

    def __len__(self) -> int:
        """How many samples there are."""

    def picture(self, index: int) -> bytes:
        """The picture file of a sample; raises SampleError where it cannot be had."""

    def captions(self, index: int) -> Sequence[str]:
        """The captions of a sample, at least one; raises SampleError where there are none."""


@dataclass(frozen=True)
class Wanted:
    """One sample to be read.

    Attributes:
        index: its number.
        visit: the number of this visit; all chance comes from it.
    """

    index: int
    visit: int = 0


@dataclass(frozen=True)
class Loaded:
    """What could be read of one batch.

    Attributes:
        pictures: n pictures, as `prepare` made them.
        captions: what `prepare` took of the captions of each of the n.
        wanted: which they are.
        unusable: sample -> why it could not be read.
    """

    pictures: list[Any]
    captions: list[Any]
    wanted: list[Wanted]
    unusable: dict[int, str]


def read_ahead(
    samples: Samples,
    batches: Iterable[Sequence[Wanted]],
    prepare: Callable[[Any, Sequence[str], int], tuple[Any, Any]],
    threads: int,
) -> Iterator[Loaded]:
    """Reads batches in order, two of them ahead of whoever consumes them.

    Args:
        samples: where to read.
        batches: which samples.
        prepare: makes of a decoded picture (mode RGB), the sample's captions and the visit what is wanted of both;
            called by several threads at a time. SampleError makes the sample unusable.
        threads: how many samples to read at a time.

    Yields:
        One per batch; empty where none of its samples can be read.
    """

    def load(wanted: Wanted) -> tuple[Any, Any] | str:
        try:
            captions = samples.captions(wanted.index)
            return prepare(decode(samples.picture(wanted.index)), captions, wanted.visit)
        except SampleError as error:
            return str(error)

    with ThreadPoolExecutor(threads, "read") as pool:
        ahead: deque[tuple[Sequence[Wanted], list[Future[tuple[Any, Any] | str]]]] = deque()
        try:
            for batch in batches:
                ahead.append((batch, [pool.submit(load, wanted) for wanted in batch]))
                if len(ahead) > _BATCHES_AHEAD:
                    yield _collect(*ahead.popleft())
            while ahead:
                yield _collect(*ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)  # nobody waits for what was read ahead


def _collect(batch: Sequence[Wanted], futures: Sequence[Future[tuple[Any, Any] | str]]) -> Loaded:
    loaded = Loaded([], [], [], {})
    for wanted, future in zip(batch, futures, strict=True):
        result = future.result()
        if isinstance(result, str):
            loaded.unusable[wanted.index] = result
        else:
            loaded.pictures.append(result[0])
            loaded.captions.append(result[1])
            loaded.wanted.append(wanted)
    return loaded
