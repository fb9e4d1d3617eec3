"""Scenes of coloured objects: drawn at random, described in numbers, rendered as pictures."""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from chaffinch.jobs.demo.backdrops import BACKGROUNDS, HORIZONS, TINTS, Backdrop, crop, grain, paint_backdrop
from chaffinch.jobs.demo.shapes import COLOURS, PAINTS, SHAPES, Paint, mix

SIZES = {"small": (0.15, 0.21), "": (0.26, 0.37), "large": (0.46, 0.62)}
ALOFT = ("sun", "star", "balloon", "rocket")


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        name: a key of `SHAPES`.
        colour: a key of `COLOURS`.
        size: "small", "" or "large", a key of `SIZES`.
        box: x0, y0, x1, y1, the tight box round the object as shares of the picture's width and height.
        mirrored: whether left and right are swapped.
        shade: the brightness of its colour, from -1 to 1.
    """

    name: str
    colour: str
    size: str
    box: tuple[float, float, float, float]
    mirrored: bool = False
    shade: float = 0.0

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box, as shares of the picture."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True)
class Scene:
    """All that a picture shows.

    Attributes:
        width: in pixels.
        height: in pixels.
        background: a key of `BACKGROUNDS`.
        tint: the colour of a plain background, else empty.
        horizon: where the ground begins, as a share of the height; 0 where there is none.
        texture: seed of everything that no caption mentions: clouds, grain, patterns.
        things: the objects, from back to front; their boxes do not overlap.
    """

    width: int
    height: int
    background: str
    tint: str
    horizon: float
    texture: int
    things: tuple[Thing, ...]


def draw_scene(rng: random.Random, groups: int | None = None, smallest: int = 160, largest: int = 320) -> Scene:
    """Draws a scene at random.

    Args:
        rng: where all chance comes from.
        groups: how many kinds of objects to place, each in one colour; by default 1 to 3. Some may find no room.
        smallest: the shortest possible side in pixels.
        largest: the longest possible side in pixels.
    """
    width = rng.randint(smallest, largest)
    height = min(largest, max(smallest, round(width * rng.choice((0.65, 0.75, 0.75, 1.0, 1.0, 1.33, 1.5)))))
    background = rng.choice(tuple(BACKGROUNDS))
    tint = rng.choice(TINTS) if background == "plain" else ""
    horizon = round(rng.uniform(*HORIZONS[background]), 3) if background in HORIZONS else 0.0
    avoided = tint or BACKGROUNDS[background]
    names = rng.sample(tuple(SHAPES), groups or rng.choices((1, 2, 3), (30, 45, 25))[0])
    things: list[Thing] = []
    for name in names:
        colour = rng.choice([colour for colour in COLOURS if colour != avoided])
        size = rng.choices(("small", "", "large"), (25, 45, 30))[0]
        count = 1 if size == "large" else rng.choices((1, 2, 3), (75, 17, 8))[0]
        mirrored, shade = rng.random() < 0.5, round(rng.uniform(-1, 1), 3)
        for _ in range(count):
            box = _place(rng, name, size, (width, height), horizon, [thing.box for thing in things])
            if box is not None:
                things.append(Thing(name, colour, size, box, mirrored, shade))
    if not things:  # a large object alone always finds room, but not every one fits above or below the horizon
        return draw_scene(rng, groups, smallest, largest)
    return Scene(width, height, background, tint, horizon, rng.getrandbits(32), tuple(things))


def _place(
    rng: random.Random,
    name: str,
    size: str,
    picture: tuple[int, int],
    horizon: float,
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
    """Finds a free box for an object, or None after many tries. Edges lie on whole pixels."""
    width, height = picture
    aspect = SHAPES[name][0] ** 0.5
    for _ in range(40):
        side = rng.uniform(*SIZES[size]) * min(width, height)
        across, down = round(side * aspect), round(side / aspect)
        if across > 0.9 * width or down > 0.9 * height:
            continue
        left = rng.randint(2, width - across - 2)
        top = rng.randint(2, height - down - 2)
        base = (top + down) / height
        # Under an open sky, what flies hangs above the horizon and everything else stands below it.
        if horizon and (
            (name in ALOFT and (top + down / 2) / height > horizon) or (name not in ALOFT and base < horizon)
        ):
            continue
        box = (left / width, top / height, (left + across) / width, base)
        if all(
            box[0] > b[2] + 0.02 or b[0] > box[2] + 0.02 or box[1] > b[3] + 0.02 or b[1] > box[3] + 0.02 for b in taken
        ):
            return box
    return None


def render(scene: Scene) -> Image.Image:
    """Paints a scene as an RGB picture; the same scene gives the same pixels."""
    rng = random.Random(scene.texture)
    canvas = paint_backdrop(Backdrop(scene.background, scene.tint, scene.horizon, scene.width, scene.height), rng)
    for thing in scene.things:
        _paint(canvas, thing)
    canvas += crop(grain(), rng, scene.width, scene.height) * np.float32(rng.uniform(1.5, 5.0))
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def _paint(canvas: np.ndarray, thing: Thing) -> None:
    """Paints one object over the canvas, drawn at twice its size for smooth edges and lit from the upper left."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = (round(edge * side) for edge, side in zip(thing.box, (width, height) * 2, strict=True))
    across, down = right - left, bottom - top
    paints = _paints(thing)
    ink = tuple(part // 3 for part in paints["colour"])
    layer = Image.new("RGBA", (2 * across, 2 * down))
    draw = ImageDraw.Draw(layer)
    line = max(2, min(across, down) // 24)
    for paint, corners in SHAPES[thing.name][1]:
        points = [((1 - x if thing.mirrored else x) * (2 * across - 1), y * (2 * down - 1)) for x, y in corners]
        draw.polygon(points, fill=(*paints[paint], 255))
        if paint == "shine":  # a reflection has no outline
            continue
        draw.line([*points, points[0]], fill=(*ink, 255), width=line, joint="curve")
    pixels = np.asarray(layer.reduce(2), np.float32)
    light = 1.16 - 0.16 * (np.linspace(0, 1, across)[None, :, None] + np.linspace(0, 1, down)[:, None, None])
    cover = pixels[:, :, 3:] / 255
    patch = canvas[top:bottom, left:right]
    patch += cover * (pixels[:, :, :3] * light.astype(np.float32) - patch)


def _paints(thing: Thing) -> dict[str, Paint]:
    """The colours of an object's parts."""
    base = COLOURS[thing.colour]
    colour = mix(base, (255, 255, 255) if thing.shade > 0 else (0, 0, 0), 0.12 * abs(thing.shade))
    return PAINTS | {
        "colour": colour,
        "dark": mix(colour, (0, 0, 0), 0.28),
        "light": mix(colour, (255, 255, 255), 0.6),
        "shine": mix(colour, (255, 255, 255), 0.5),
    }
