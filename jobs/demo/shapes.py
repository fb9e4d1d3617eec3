"""The objects of the rendered world, as polygons in a unit square with x to the right and y down."""

import math

Paint = tuple[int, int, int]
Point = tuple[float, float]
Part = tuple[str, tuple[Point, ...]]
"""What paints a part (the object's colour, its darker or lighter shade, or a fixed paint) and the part's corners."""

COLOURS = {
    "red": (205, 45, 45),
    "orange": (238, 135, 35),
    "yellow": (245, 212, 55),
    "green": (60, 158, 72),
    "blue": (45, 98, 205),
    "purple": (128, 62, 172),
    "pink": (240, 140, 182),
    "brown": (132, 86, 50),
    "white": (244, 244, 238),
    "black": (40, 41, 46),
    "grey": (142, 146, 152),
}
PAINTS = {
    "glass": (190, 222, 238),
    "wood": (120, 80, 48),
    "leaf": (70, 140, 62),
    "tyre": (44, 44, 50),
    "flame": (250, 180, 60),
}


def mix(first: Paint, second: Paint, share: float) -> Paint:
    """The colour that lies `share` of the way from the first to the second."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _arc(x: float, y: float, across: float, down: float, start: float = 0, end: float = 360) -> tuple[Point, ...]:
    """Points on an ellipse round (x, y) with radii `across` and `down`; degrees run clockwise from the right."""
    steps = max(3, math.ceil(abs(end - start) / 9))
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return tuple((x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles)


def _box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _fill(points: list[Point]) -> tuple[Point, ...]:
    """Stretches points so that they reach all four edges of the unit square."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    return tuple(((x - min(xs)) / width, (y - min(ys)) / height) for x, y in points)


def _spikes(count: int, inner: float, turn: float) -> tuple[Point, ...]:
    """A star with `count` tips; `inner` is the radius of its notches as a share of that of its tips."""
    radii = [1.0 if corner % 2 == 0 else inner for corner in range(2 * count)]
    angles = [math.radians(turn + 180 * corner / count) for corner in range(2 * count)]
    return _fill([(r * math.cos(angle), r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True)])


def _heart() -> tuple[Point, ...]:
    turns = [2 * math.pi * step / 48 for step in range(48)]
    return _fill(
        [
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
            for t in turns
        ]
    )


def _petals() -> tuple[Point, ...]:
    """A wavy circle of six petals."""
    turns = [math.radians(step * 4) for step in range(90)]
    return _fill(
        [((1 + 0.28 * math.cos(6 * t)) * math.cos(t), (1 + 0.28 * math.cos(6 * t)) * math.sin(t)) for t in turns]
    )


SHAPES: dict[str, tuple[float, tuple[Part, ...]]] = {
    # name: (width over height, parts from back to front); the parts together touch all four edges of the square
    "ball": (
        1.0,
        (
            ("colour", _arc(0.5, 0.5, 0.5, 0.5)),
            ("dark", _arc(0.5, 0.5, 0.5, 0.13, 0, 180) + _arc(0.5, 0.5, 0.5, 0.03, 180, 0)),
            ("shine", _arc(0.33, 0.26, 0.12, 0.09)),
        ),
    ),
    "box": (
        1.1,
        (
            ("colour", _box(0, 0.28, 0.75, 1)),
            ("light", ((0, 0.28), (0.25, 0), (1, 0), (0.75, 0.28))),
            ("dark", ((0.75, 0.28), (1, 0), (1, 0.72), (0.75, 1))),
        ),
    ),
    "house": (
        1.0,
        (
            ("dark", _box(0.7, 0.06, 0.82, 0.4)),
            ("colour", _box(0.08, 0.42, 0.92, 1)),
            ("dark", ((0, 0.46), (0.5, 0), (1, 0.46))),
            ("glass", _box(0.18, 0.56, 0.4, 0.76)),
            ("wood", _box(0.56, 0.58, 0.78, 1)),
        ),
    ),
    "tree": (
        0.75,
        (
            ("wood", _box(0.42, 0.6, 0.58, 1)),
            (
                "colour",
                _arc(0.25, 0.5, 0.25, 0.24, 60, 250)
                + _arc(0.5, 0.25, 0.32, 0.25, 190, 350)
                + _arc(0.75, 0.5, 0.25, 0.24, -70, 120),
            ),
        ),
    ),
    "star": (1.05, (("colour", _spikes(5, 0.45, -90)),)),
    "car": (
        1.9,
        (
            ("colour", ((0.17, 0.45), (0.3, 0), (0.68, 0), (0.85, 0.42), (1, 0.5), (1, 0.82), (0, 0.82), (0, 0.48))),
            ("glass", ((0.25, 0.42), (0.34, 0.1), (0.48, 0.1), (0.48, 0.42))),
            ("glass", ((0.53, 0.42), (0.53, 0.1), (0.65, 0.1), (0.76, 0.42))),
            ("tyre", _arc(0.22, 0.8, 0.1, 0.2)),
            ("tyre", _arc(0.78, 0.8, 0.1, 0.2)),
            ("light", _arc(0.22, 0.8, 0.045, 0.09)),
            ("light", _arc(0.78, 0.8, 0.045, 0.09)),
        ),
    ),
    "fish": (
        1.8,
        (
            ("dark", ((0.7, 0.5), (1, 0.1), (0.93, 0.5), (1, 0.9))),
            ("dark", ((0.3, 0.2), (0.45, 0), (0.6, 0.25))),
            ("colour", _arc(0.4, 0.55, 0.4, 0.45)),
            ("dark", ((0.4, 0.5), (0.58, 0.66), (0.4, 0.72))),
            ("light", _arc(0.17, 0.45, 0.055, 0.1)),
            ("tyre", _arc(0.165, 0.45, 0.025, 0.045)),
        ),
    ),
    "boat": (
        1.1,
        (
            ("wood", _box(0.47, 0, 0.51, 0.75)),
            ("light", ((0.53, 0.04), (0.92, 0.66), (0.53, 0.66))),
            ("light", ((0.45, 0.14), (0.14, 0.66), (0.45, 0.66))),
            ("colour", ((0, 0.72), (1, 0.72), (0.82, 1), (0.16, 1))),
        ),
    ),
    "cup": (
        1.2,
        (
            ("dark", _arc(0.76, 0.45, 0.24, 0.3, -90, 90) + _arc(0.76, 0.45, 0.13, 0.17, 90, -90)),
            ("colour", ((0, 0.08), (0.8, 0.08), (0.76, 0.8), (0.62, 1), (0.18, 1), (0.04, 0.8))),
            ("light", _arc(0.4, 0.09, 0.4, 0.09)),
        ),
    ),
    "flower": (
        0.65,
        (
            ("leaf", _box(0.47, 0.5, 0.54, 1)),
            ("leaf", ((0.5, 0.95), (0.2, 0.86), (0.08, 0.7), (0.36, 0.78))),
            ("leaf", ((0.5, 0.9), (0.8, 0.82), (0.93, 0.68), (0.64, 0.74))),
            ("colour", tuple((x, y * 0.62) for x, y in _petals())),
            ("light", _arc(0.5, 0.31, 0.17, 0.11)),
        ),
    ),
    "sun": (1.0, (("dark", _spikes(12, 0.72, 0)), ("colour", _arc(0.5, 0.5, 0.35, 0.35)))),
    "balloon": (
        0.6,
        (
            ("wood", ((0.5, 0.68), (0.42, 0.84), (0.54, 1), (0.57, 1), (0.46, 0.84), (0.53, 0.68))),
            ("dark", ((0.5, 0.62), (0.6, 0.7), (0.4, 0.7))),
            ("colour", _arc(0.5, 0.33, 0.5, 0.33)),
            ("shine", _arc(0.3, 0.2, 0.09, 0.07)),
        ),
    ),
    "umbrella": (
        1.0,
        (
            (
                "wood",
                ((0.48, 0.4), (0.52, 0.4), (0.52, 0.9), (0.6, 0.96), (0.66, 0.9), (0.7, 0.92), (0.61, 1), (0.48, 0.92)),
            ),
            ("colour", _arc(0.5, 0.5, 0.5, 0.5, 180, 360)),
            ("dark", _arc(0.5, 0.5, 0.17, 0.5, 180, 360)),
        ),
    ),
    "mushroom": (
        0.95,
        (
            ("light", ((0.36, 0.5), (0.64, 0.5), (0.7, 1), (0.3, 1))),
            ("colour", _arc(0.5, 0.6, 0.5, 0.6, 180, 360)),
            ("light", _arc(0.3, 0.36, 0.08, 0.08)),
            ("light", _arc(0.56, 0.22, 0.09, 0.08)),
            ("light", _arc(0.75, 0.42, 0.07, 0.07)),
        ),
    ),
    "heart": (1.08, (("colour", _heart()), ("shine", _arc(0.27, 0.28, 0.09, 0.08)))),
    "tent": (
        1.3,
        (
            ("colour", ((0, 1), (0.5, 0), (1, 1))),
            ("dark", ((0.36, 1), (0.5, 0.3), (0.64, 1))),
        ),
    ),
    "rocket": (
        0.6,
        (
            ("dark", ((0.25, 0.55), (0, 0.92), (0.3, 0.86))),
            ("dark", ((0.75, 0.55), (1, 0.92), (0.7, 0.86))),
            ("flame", ((0.36, 0.86), (0.64, 0.86), (0.5, 1))),
            ("colour", ((0.5, 0), (0.68, 0.16), (0.78, 0.42), (0.7, 0.87), (0.3, 0.87), (0.22, 0.42), (0.32, 0.16))),
            ("glass", _arc(0.5, 0.36, 0.13, 0.08)),
        ),
    ),
    "apple": (
        0.92,
        (
            ("wood", ((0.47, 0.25), (0.5, 0), (0.56, 0.02), (0.53, 0.25))),
            ("leaf", ((0.54, 0.14), (0.68, 0.02), (0.84, 0.05), (0.7, 0.15))),
            ("colour", _arc(0.32, 0.58, 0.32, 0.42, 90, 300) + _arc(0.68, 0.58, 0.32, 0.42, 240, 450)),
            ("shine", _arc(0.24, 0.45, 0.07, 0.1)),
        ),
    ),
}
