"""Exact search with faiss, on a GPU where there is one; on the CPU the same numbers on any number of threads."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

QUERIES = 4096
"""Queries in one search: enough for a matrix product, few enough that many threads share the work."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Search:
    """Where searches run.

    A matrix product's last bits depend on how many threads share it. So each search has one thread to itself, and
    several searches of fixed size run beside each other: how many does not change a number.

    Attributes:
        device: "cpu" or "cuda"; cuda counts only where the installed faiss was built for it and finds a GPU.
        threads: searches that run beside each other on the CPU.
    """

    device: str = "cpu"
    threads: int = 1

    @property
    def on_gpu(self) -> bool:
        """Whether searches run on a GPU."""
        return self.device == "cuda" and _gpu() is not None

    def most_similar(self, queries: np.ndarray, base: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Finds the rows of the largest inner products, by trying all.

        Args:
            queries: (n, d) float32.
            base: (k, d) float32.
            count: how many to find, at most k.

        Returns:
            (n, count) float32 inner products in descending order, and (n, count) int64 rows of `base`.
        """
        import faiss

        if self.on_gpu:
            found = faiss.knn_gpu(_gpu(), queries, base, count, metric=faiss.METRIC_INNER_PRODUCT)
        else:
            with one_thread():
                found = faiss.knn(queries, base, count, metric=faiss.METRIC_INNER_PRODUCT)
        return np.asarray(found[0]), np.asarray(found[1])

    def fewest_bits(self, queries: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Finds the fewest differing bits, by trying all; on the CPU, which counts bits fast enough.

        Args:
            queries: (n,) uint64.
            base: (k,) uint64, at least one.

        Returns:
            (n,) uint8 bits, 0 to 64.
        """
        import faiss

        asked, known = (np.ascontiguousarray(part).view(np.uint8).reshape(-1, 8) for part in (queries, base))
        with one_thread():
            distances, _ = faiss.knn_hamming(asked, known, 1)
        return np.asarray(distances)[:, 0].astype(np.uint8)

    def in_order(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Calls a function of each item, several at a time, a few ahead of whoever consumes the results.

        Args:
            function: anything that may run in a thread.
            items: what to call it with.

        Yields:
            The results, in the order of the items.
        """
        threads = 1 if self.on_gpu else min(self.threads, len(items))
        if threads <= 1:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(threads, "search") as pool:
            ahead: deque[Future[Result]] = deque()
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


@functools.cache
def _gpu() -> Any:
    """What faiss needs to use the first GPU; None where it was built without, or there is none."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return None
    return faiss.StandardGpuResources()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Lets faiss use one thread where it is called from this one; others keep what they have."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def pieces(start: int, end: int, size: int = QUERIES) -> list[slice]:
    """Cuts a range into parts of at most `size`."""
    return [slice(low, min(low + size, end)) for low in range(start, end, size)]


def doublings(n: int, leaf: int) -> Iterator[list[tuple[slice, slice]]]:
    """How to meet every pair of n ordered rows once, outside of leaves of so many rows, in few and large searches.

    Args:
        n: rows.
        leaf: consecutive rows that meet each other elsewhere.

    Yields:
        Rounds of (rows that come first, as many rows or fewer that follow them); of one round none overlap.
    """
    width = leaf
    while width < n:
        yield [
            (slice(start, start + width), slice(start + width, min(start + 2 * width, n)))
            for start in range(0, n - width, 2 * width)
        ]
        width *= 2
