"""The samples of a pool: which kind each one is, and what it looks like."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from chaffinch.jobs.demo.grammar import describe
from chaffinch.jobs.demo.noise import BROKEN, CAPTION_NOISE, PICTURE_NOISE, REPEATED, near_copy
from chaffinch.jobs.demo.scenes import Scene, draw_scene, render

KINDS = ("clean", *CAPTION_NOISE, *PICTURE_NOISE, *REPEATED, *BROKEN)

NOISE: dict[str, float] = {
    "mismatch": 0.10,
    "mismatch_similar": 0.04,
    "alt_text": 0.07,
    "foreign": 0.06,
    "boilerplate": 0.05,
    "too_short": 0.02,
    "gibberish": 0.02,
    "blank": 0.02,
    "dark": 0.02,
    "tiny": 0.02,
    "strip": 0.015,
    "blurred": 0.03,
    "duplicate": 0.03,
    "repeated_uid": 0.01,
    **dict.fromkeys(BROKEN, 0.0025),
}
"""Shares of the kinds of noise in a demo pool; what is left, a little less than half, is clean."""


@dataclass(frozen=True)
class Sample:
    """One rendered sample.

    Attributes:
        uid: 32 hex digits.
        scene: what the picture shows, or showed before it was spoiled.
        picture: as it is stored, but for JPEG's losses.
        caption: as it is stored.
        quality: of the JPEG.
        kind: "clean" or the kind of noise.
        group: the uid of the clean sample that this one repeats, or empty.
    """

    uid: str
    scene: Scene
    picture: Image.Image
    caption: str
    quality: int
    kind: str
    group: str = ""


def clean_sample(stream: str, index: int) -> Sample:
    """Renders a sample whose caption is true; the same stream and index give the same sample.

    Args:
        stream: a name; streams of different names share no scenes.
        index: the number of the sample in its stream.
    """
    rng = random.Random(f"{stream}/{index}")
    scene = draw_scene(rng)
    uid = hashlib.sha256(f"{stream}/{index}".encode()).hexdigest()[:32]
    return Sample(uid, scene, render(scene), describe(scene, rng), rng.randint(80, 95), "clean")


def noisy_sample(stream: str, index: int, kind: str, original: int) -> Sample:
    """Renders a sample with one kind of noise.

    Args:
        stream: a name, as for `clean_sample`.
        index: the number of the sample in its stream.
        kind: one of `KINDS`. The broken kinds are clean here: they are broken when they are written.
        original: the number of the clean sample that a repeated kind repeats; others pay no heed to it.
    """
    rng = random.Random(f"{stream}/{index}/{kind}")
    if kind in REPEATED:
        first = clean_sample(stream, original)
        if kind == "repeated_uid":
            return Sample(first.uid, first.scene, first.picture, first.caption, first.quality, kind, first.uid)
        uid = hashlib.sha256(f"{stream}/{index}".encode()).hexdigest()[:32]
        picture = near_copy(first.picture, rng)
        return Sample(uid, first.scene, picture, first.caption, rng.randint(60, 80), kind, first.uid)
    clean = clean_sample(stream, index)
    picture, caption = clean.picture, clean.caption
    if kind in CAPTION_NOISE:
        caption = CAPTION_NOISE[kind](clean.scene, rng)
    elif kind in PICTURE_NOISE:
        picture = PICTURE_NOISE[kind](picture, rng)
    return Sample(clean.uid, clean.scene, picture, caption, clean.quality, kind)


def plan(samples: int, noise: Mapping[str, float], rng: random.Random) -> list[str]:
    """Decides the kind of each sample of a pool; the first is clean, so that there is always one to repeat.

    Args:
        samples: how many there are.
        noise: share of each kind of noise; every kind named gets at least one sample.
        rng: where their order comes from.

    Raises:
        ValueError: `noise` names an unknown kind or leaves no clean sample.
    """
    unknown = sorted(set(noise) - set(KINDS[1:]))
    if unknown:
        raise ValueError(f"no such noise: {', '.join(unknown)}; there are {', '.join(KINDS[1:])}")
    kinds = [kind for kind, share in noise.items() if share > 0 for _ in range(max(1, round(share * samples)))]
    if len(kinds) >= samples:
        raise ValueError(f"{len(kinds)} of {samples} samples would be noise, and none clean")
    kinds += ["clean"] * (samples - len(kinds))
    rng.shuffle(kinds)
    first = kinds.index("clean")
    kinds[0], kinds[first] = kinds[first], kinds[0]
    return kinds
