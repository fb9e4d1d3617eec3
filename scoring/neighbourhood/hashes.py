"""Perceptual hashes of 64 bits: each one's distance to the nearest of those that come before it, found by bands."""

import itertools

import numpy as np

from chaffinch.scoring.neighbourhood.search import Search, doublings, pieces

BITS = 64
NONE_NEAR = 64
"""The distance of a sample to which nobody within the radius is preferred; more than any radius."""
MOST = 31
"""The largest radius: below it bands have at least two bits."""
CELLS_PER_BAND = 256
_LEAF = 16
_LEAVES = 4096
_ODD = np.uint64(0x9E3779B97F4A7C15)


def bands(radius: int) -> list[tuple[int, int]]:
    """Cuts 64 bits into one band more than the radius: hashes that differ in so many bits agree in one whole band.

    Args:
        radius: bits, 0 to 31.

    Returns:
        (lowest bit, width) of each band.

    Source: Manku, Jain and Das Sarma, Detecting near-duplicates for web crawling, 2007.
    """
    ends = [BITS * band // (radius + 1) for band in range(radius + 2)]
    return [(start, end - start) for start, end in itertools.pairwise(ends)]


def band_values(hashes: np.ndarray, band: tuple[int, int]) -> np.ndarray:
    """(n,) uint64: the bits of each hash in one band."""
    start, width = band
    values: np.ndarray = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
    return values


def cells(hashes: np.ndarray, radius: int) -> np.ndarray:
    """Where to look for the neighbours of hashes: those that agree in a band share its cell.

    Args:
        hashes: (n,) uint64.
        radius: bits.

    Returns:
        (n, radius + 1) int64 cells, below 256 * (radius + 1); hashes that share one need not agree in the band.
    """
    found = [
        band * CELLS_PER_BAND + ((band_values(hashes, place) * _ODD) >> np.uint64(BITS - 8)).astype(np.int64)
        for band, place in enumerate(bands(radius))
    ]
    return np.stack(found, axis=1)


def distance_in_cell(hashes: np.ndarray, cell: int, radius: int, search: Search) -> np.ndarray:
    """Finds each hash's distance to the nearest that comes before it, among those that agree with it in a band.

    Args:
        hashes: (n,) uint64.
        cell: which cell they share.
        radius: bits.
        search: where to search.

    Returns:
        (n,) uint8 bits in 0 to the radius; 64 where none is within the radius. The least over all cells of a hash is
        its distance among all hashes.
    """
    values = band_values(hashes, bands(radius)[cell // CELLS_PER_BAND])
    nearest = np.full(len(hashes), NONE_NEAR, np.uint8)
    order = np.argsort(values, kind="stable")
    ends = np.concatenate([[0], np.flatnonzero(np.diff(values[order])) + 1, [len(order)]])
    for group in np.flatnonzero(np.diff(ends) > 1):  # wide bands leave most hashes alone
        members = order[ends[group] : ends[group + 1]]
        nearest[members] = distance_to_preceding(hashes[members], search)
    return np.where(nearest <= radius, nearest, np.uint8(NONE_NEAR))


def distance_to_preceding(hashes: np.ndarray, search: Search) -> np.ndarray:
    """Finds each hash's distance to the nearest that comes before it, by trying all of them.

    Args:
        hashes: (n,) uint64.
        search: where to search.

    Returns:
        (n,) uint8 bits, 0 to 64; 64 for the first.
    """
    _, firsts = np.unique(hashes, return_index=True)
    firsts.sort()
    nearest = np.zeros(len(hashes), np.uint8)  # all but the first of equal hashes
    nearest[firsts] = _among_different(hashes[firsts], search)
    return nearest


def distance_to_any(hashes: np.ndarray, others: np.ndarray, search: Search) -> np.ndarray:
    """Finds each hash's distance to the nearest of others, by trying all of them.

    Args:
        hashes: (n,) uint64.
        others: (k,) uint64, at least one.
        search: where to search.

    Returns:
        (n,) uint8 bits, 0 to 64.
    """
    found = search.in_order(lambda rows: search.fewest_bits(hashes[rows], others), pieces(0, len(hashes)))
    return np.concatenate([np.zeros(0, np.uint8), *found])


def _among_different(hashes: np.ndarray, search: Search) -> np.ndarray:
    n = len(hashes)
    nearest = np.full(n, NONE_NEAR, np.uint8)
    for start in range(0, n, _LEAF * _LEAVES):
        nearest[start : start + _LEAF * _LEAVES] = _within_leaves(hashes[start : start + _LEAF * _LEAVES])

    def compare(task: tuple[slice, slice]) -> np.ndarray:
        before, rows = task
        return search.fewest_bits(hashes[rows], hashes[before])

    for level in doublings(n, _LEAF):
        tasks = [(before, part) for before, after in level for part in pieces(after.start, after.stop)]
        for (_, rows), found in zip(tasks, search.in_order(compare, tasks), strict=True):
            nearest[rows] = np.minimum(nearest[rows], found)
    return nearest


def _within_leaves(hashes: np.ndarray) -> np.ndarray:
    n = len(hashes)
    padded = np.zeros(-(-n // _LEAF) * _LEAF, np.uint64)
    padded[:n] = hashes
    leaves = padded.reshape(-1, _LEAF)
    distances = np.bitwise_count(leaves[:, :, None] ^ leaves[:, None, :])
    distances[:, ~np.tri(_LEAF, k=-1, dtype=bool)] = NONE_NEAR
    nearest: np.ndarray = distances.min(axis=2).ravel()[:n]
    return nearest
