"""Text lines: from the map of probabilities that a differentiable-binarisation detector gives to lines with a size.

Such a network is trained to mark the core of each line, shrunk by an offset that depends on its area and perimeter. So
marked pixels that touch are one line, the smallest rectangle around them is its core, and the same offset makes it
whole again. Source: Liao, Wan, Yao, Chen, Bai (2020), Real-time Scene Text Detection with Differentiable Binarization,
arXiv 1911.08947, sections 3.4 and 3.5.
"""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.3
"""Probability above which a pixel belongs to a line, as in PP-OCR."""

UNCLIP = 1.5
"""A core is grown on every side by its area over its perimeter, times this; as in arXiv 1911.08947 and PP-OCR."""

LEAST_SIDE = 3
"""Thinner cores, in pixels of the map, are noise; as in PP-OCR."""


@dataclass(frozen=True)
class Rectangle:
    """A rectangle at any angle.

    Attributes:
        centre: (2,) x and y.
        along, across: (2,) unit vectors at right angles.
        length, height: extent along the one and the other.
    """

    centre: np.ndarray
    along: np.ndarray
    across: np.ndarray
    length: float
    height: float

    def corners(self) -> np.ndarray:
        """(4, 2), one after the other around it."""
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
        return self.centre + signs @ np.stack([self.along * self.length, self.across * self.height])

    def grown(self, margin: float) -> "Rectangle":
        """The rectangle with so much more on every side."""
        return Rectangle(self.centre, self.along, self.across, self.length + 2 * margin, self.height + 2 * margin)


@dataclass(frozen=True)
class Lines:
    """The k lines of a picture, the surest first.

    Attributes:
        boxes: (k, 4) float32, left, top, right and bottom edge as shares of the picture, in [0, 1].
        confidences: (k,) float32, mean probability of the core's pixels, in (0.3, 1]. PP-OCR takes the mean over the
            rectangle, which makes lines unsure as soon as they are slanted or bent.
        lengths, heights: (k,) float64, pixels of the picture along and across the line; a length is the longer of both.
        areas: (k,) float64, shares of the picture.
    """

    boxes: np.ndarray
    confidences: np.ndarray
    lengths: np.ndarray
    heights: np.ndarray
    areas: np.ndarray


def find_lines(probabilities: np.ndarray, width: int, height: int) -> Lines:
    """Finds the lines in a map of probabilities.

    Args:
        probabilities: (rows, columns) float32, for each place whether it belongs to the core of a line, in [0, 1].
        width: of the picture that the map covers, pixels.
        height: likewise.

    Returns:
        The lines.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(probabilities > LEVEL, np.ones((3, 3)))
    rows, columns = probabilities.shape
    size, scale = np.array([columns, rows]), np.array([width / columns, height / rows])
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[place] == number
        core = enclose(mask, place[1].start, place[0].start)
        if min(core.length, core.height) < LEAST_SIDE:
            continue
        line = core.grown(UNCLIP * core.length * core.height / (2 * (core.length + core.height)))
        corners = line.corners() / size
        sides = np.linalg.norm(line.along * line.length * scale), np.linalg.norm(line.across * line.height * scale)
        found.append(
            (
                *np.clip((*corners.min(axis=0), *corners.max(axis=0)), 0, 1),
                probabilities[place][mask].mean(dtype=np.float64),
                max(sides),
                min(sides),
                line.length * line.height / (columns * rows),
            )
        )
    numbers = np.array(sorted(found, key=lambda one: -one[4]), np.float64).reshape(-1, 8)
    confidences = numbers[:, 4].astype(np.float32)
    return Lines(numbers[:, :4].astype(np.float32), confidences, numbers[:, 5], numbers[:, 6], numbers[:, 7])


def enclose(mask: np.ndarray, left: int = 0, top: int = 0) -> Rectangle:
    """Finds the smallest rectangle around pixels, at any angle: one of its sides lies along their convex hull.

    Args:
        mask: (rows, columns) bool, which pixels; at least one in every row.
        left: column of the mask's first pixel.
        top: likewise its row.

    Returns:
        The rectangle, around the pixels' corners and not their centres.
    """
    from scipy.spatial import ConvexHull

    starts, ends = mask.argmax(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1)  # (rows,)
    rows = np.arange(len(mask))
    points = np.stack([np.concatenate([starts, starts, ends, ends]), np.concatenate([rows, rows + 1] * 2)], axis=1)
    hull = points[ConvexHull(points).vertices] + np.array([left, top])  # (k, 2)
    edges = np.roll(hull, -1, axis=0) - hull
    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)  # (k, 2), a direction to try each
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    places = hull @ along.T, hull @ across.T  # (k points, k directions)
    lengths, heights = (np.ptp(place, axis=0) for place in places)
    best = int((lengths * heights).argmin())
    middles = [(place[:, best].min() + place[:, best].max()) / 2 for place in places]
    centre = middles[0] * along[best] + middles[1] * across[best]
    return Rectangle(centre, along[best], across[best], float(lengths[best]), float(heights[best]))
