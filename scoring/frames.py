"""Finds the frame of one colour that films, memes and scans have around what they show."""

import numpy as np

TOLERANCE = 8
"""Levels of 256. JPEG at the qualities of the web moves flat colours by half as many."""


def find_frame(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Measures the lines at each side that have one colour.

    A line belongs to a side's frame while no channel of any of its pixels differs from the median of the outermost
    line by more than 8 levels, and all lines further out belong to it. Each side is measured for itself, over the
    whole length of the lines: bars of two colours that cross are found up to the crossing.

    Args:
        pixels: (height, width, channels) uint8.

    Returns:
        Left, top, right, bottom: shares of the width or height, in [0, 1]. Sides may overlap: all are 1 where the
        picture is flat.
    """
    columns = pixels.swapaxes(0, 1)
    return _measure(columns), _measure(pixels), _measure(columns[::-1]), _measure(pixels[::-1])


def _measure(lines: np.ndarray) -> float:
    """Share of the lines, counted from the first, that have one colour; (k, length, channels)."""
    colour = np.sort(lines[0], axis=0)[lines.shape[1] // 2].astype(np.int16)  # the upper of two medians: a whole number
    low, high = np.clip((colour - TOLERANCE, colour + TOLERANCE), 0, 255).astype(np.uint8)
    if not _fit(lines[:1], low, high)[0]:  # most photos need no more
        return 0.0
    fit = _fit(lines, low, high)
    return 1.0 if fit.all() else int(fit.argmin()) / len(lines)


def _fit(lines: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(k,) bool, whether all pixels of a line are between the colours."""
    return np.asarray(((lines >= low) & (lines <= high)).all(axis=(1, 2)))
