"""Planted noise: what is wrong with samples of real pools, one small function each.

`CAPTION_NOISE` spoils captions, `PICTURE_NOISE` pictures, and `BROKEN` the members of a sample, so that it cannot even
be read. Which kinds a pool gets, and how many of each, is the business of `chaffinch.jobs.demo.samples`.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from chaffinch.jobs.demo.grammar import LANGUAGES, describe, group_things
from chaffinch.jobs.demo.scenes import Scene, draw_scene
from chaffinch.jobs.demo.shapes import COLOURS, SHAPES

Members = list[tuple[str, bytes]]
"""The members of one sample in order: extension and content."""


def mismatch(scene: Scene, rng: random.Random) -> str:
    """A good caption, but of another picture that shares no object with this one."""
    shown = {thing.name for thing in scene.things}
    other = scene
    while shown & {thing.name for thing in other.things}:
        other = draw_scene(rng)
    return describe(other, rng)


def mismatch_similar(scene: Scene, rng: random.Random) -> str:
    """This picture's caption with one word wrong: the largest object's name or its colour."""
    wrong = group_things(scene)[0].things
    name, colour = wrong[0].name, wrong[0].colour
    if rng.random() < 0.5:
        name = rng.choice([other for other in SHAPES if other not in {thing.name for thing in scene.things}])
    else:
        avoided = {thing.colour for thing in scene.things} | {scene.tint}
        colour = rng.choice([other for other in COLOURS if other not in avoided])
    things = tuple(replace(thing, name=name, colour=colour) if thing in wrong else thing for thing in scene.things)
    return describe(replace(scene, things=things), rng)


def foreign(scene: Scene, rng: random.Random) -> str:
    """A true caption in another language than English."""
    return describe(scene, rng, rng.choice([language for language in LANGUAGES if language != "en"]))


_BRANDS = ("Norvella", "Altmark", "Quintaro", "Bexley & Sons", "Harrow Peak", "Lumina Pro", "TrekLite", "Velmont")
_GOODS = (
    "Waterproof Hiking Boots", "Stainless Steel Frying Pan", "Wireless Headphones", "Leather Office Chair",
    "Cordless Drill Set", "Cotton Bed Sheets", "Running Shoes", "Ceramic Dinner Plates", "Laptop Backpack",
    "Memory Foam Pillow", "Ladies Summer Dress", "Kitchen Knife Block", "Phone Case with Stand", "Electric Toothbrush",
)  # fmt: skip
_EXTRAS = (
    "Size {}",
    "Pack of {}",
    "{}% Off",
    "Model {}",
    "{} Reviews",
    "Only ${}",
    "Save ${} Today",
    "{}-Year Warranty",
)
_SHOPS = ("Free Shipping", "Buy Online", "Best Price Guaranteed", "Official Store", "Add to Basket", "In Stock Now")
_PEOPLE = ("The prime minister", "A city council", "The head coach", "A local teacher", "The finance committee",
           "An opposition leader", "The national team", "A team of researchers")  # fmt: skip
_DEEDS = ("announces new budget plans", "meets farmers over drought relief", "wins award for community work",
          "signs a three year contract", "answers questions about school funding", "publishes report on rail delays",
          "prepares for the final round", "calls for lower energy prices")  # fmt: skip
_WHERE = ("in the northern region", "ahead of the elections", "at the annual conference", "after weeks of talks",
          "during a press briefing on {}", "as protests enter week {}", "in week {} of the season")  # fmt: skip


def alt_text(scene: Scene, rng: random.Random) -> str:
    """Alternative text as shops and newspapers write it; it has nothing to do with the picture."""
    number = rng.randint(2, 48)
    if rng.random() < 0.5:
        mark = rng.choice((" -", ",", " |"))
        goods = f"{rng.choice(_BRANDS)} {rng.choice(_GOODS)}{mark} {rng.choice(_EXTRAS)}{mark} {rng.choice(_SHOPS)}"
        return goods.format(number)
    return f"{rng.choice(_PEOPLE)} {rng.choice(_DEEDS)} {rng.choice(_WHERE)}".format(number)


_STOCK = (
    "Click to enlarge", "Click here to view full size image", "Image description not available", "Untitled-{a}.png",
    "IMG_{d}.JPG", "DSC0{d}.jpg", "IMG_20{b}0{a}1{a}_{d}{b}.jpg", "Screenshot 20{b}-0{a}-1{a} at 1{a}.{b}.{b}.png",
    "20{b}-0{a}-1{a} 1{a}.{b}", "https://www.example.com/gallery/{d}/image-{a}.html", "www.example.org/photos?id={d}",
    "Thumbnail for version as of 1{a}:{b}, {a} May 20{b}", "Photo {a} of {b}", "Page {a} of {b}", "Share on Facebook",
    "Sign in to view this content", "Home | Gallery | Contact", "Copyright 20{b}. All rights reserved.",
    "Loading, please wait...", "slider-image-{a}", "product_{d}_main_large.jpg", "Download free wallpaper {d}x{d}",
)  # fmt: skip


def boilerplate(scene: Scene, rng: random.Random) -> str:
    """File names, dates, addresses and the words of buttons."""
    return rng.choice(_STOCK).format(a=rng.randint(1, 9), b=rng.randint(10, 24), d=rng.randint(1000, 9999))


def too_short(scene: Scene, rng: random.Random) -> str:
    """One or two words, true as they may be."""
    name = scene.things[0].name
    return rng.choice((name, f"{name} {rng.randint(1, 9)}", f"my {name}", "photo", "nice", "image", "wow!", "my pic"))


def gibberish(scene: Scene, rng: random.Random) -> str:
    """Keys hit at random, symbols, one word over and over, or text decoded twice."""
    way = rng.randrange(4)
    if way == 0:
        letters = "qwrtzpsdfghjklxcvbnmaeu"
        return " ".join("".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(rng.randint(4, 9)))
    if way == 1:
        return " ".join("".join(rng.choices("#%&*+/=?@_~|<>0123456789", k=rng.randint(2, 7))) for _ in range(6))
    if way == 2:
        return " ".join([rng.choice(("free", "best", "hot", "sale", "new"))] * rng.randint(6, 14))
    text = describe(scene, rng, "cs")
    return text.encode().decode("cp1252", "replace").encode().decode("cp1252", "replace")


def blank(picture: Image.Image, rng: random.Random) -> Image.Image:
    """One flat colour, as where a picture failed to load; some have a frame."""
    level = rng.choice((255, 255, 238, 204, 128, 0))
    flat = Image.new("RGB", picture.size, rng.choice(((level,) * 3, (level, level, min(255, level + 12)))))
    if rng.random() < 0.4:
        edge = (level + 128) % 256
        ImageDraw.Draw(flat).rectangle((0, 0, flat.width - 1, flat.height - 1), outline=(edge, edge, edge))
    return flat


def dark(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Exposed so short that hardly anything can be seen."""
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.03, 0.09))


def tiny(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A thumbnail whose longer side is 16 to 40 pixels."""
    longer = rng.randint(16, 40)
    scale = longer / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def strip(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A banner: a band of the picture, six to twelve times as long as it is wide."""
    long, short = rng.randint(480, 720), rng.randint(64, 80)
    band = picture.height // 8
    top = rng.randint(0, picture.height - band)
    banner = picture.crop((0, top, picture.width, top + band)).resize((long, short), Image.Resampling.BICUBIC)
    return banner if rng.random() < 0.7 else banner.transpose(Image.Transpose.ROTATE_90)


def blurred(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Far out of focus."""
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(6, 11)))


def near_copy(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The same picture as another site shows it: scaled, cropped at the edges or brightened a little."""
    way = rng.randrange(3)
    if way == 0:
        scale = rng.uniform(0.7, 1.3)
        return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    if way == 1:
        across, down = (round(side * rng.uniform(0.01, 0.04)) for side in picture.size)
        return picture.crop((across, down, picture.width - across, picture.height - down))
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(1.05, 1.2))


def _html(members: Members, rng: random.Random) -> Members:
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
    return _put(members, "jpg", page)


def _cut_picture(members: Members, rng: random.Random) -> Members:
    whole = dict(members)["jpg"]
    return _put(members, "jpg", whole[: round(len(whole) * rng.uniform(0.2, 0.7))])


def _empty_picture(members: Members, rng: random.Random) -> Members:
    return _put(members, "jpg", b"")


def _empty_caption(members: Members, rng: random.Random) -> Members:
    return _put(members, "txt", rng.choice((b"", b"", b"\n", b"  ")))


def _no_caption(members: Members, rng: random.Random) -> Members:
    return [(extension, content) for extension, content in members if extension != "txt"]


def _latin1_caption(members: Members, rng: random.Random) -> Members:
    caption = dict(members)["txt"].decode()
    return _put(members, "txt", rng.choice((f"{caption} © Café Noël", f"Déjà vu: {caption}")).encode("latin-1"))


def _bad_json(members: Members, rng: random.Random) -> Members:
    whole = dict(members)["json"]
    return _put(members, "json", whole[: rng.randint(1, len(whole) - 2)])


def _two_pictures(members: Members, rng: random.Random) -> Members:
    return [members[0], ("jpeg", members[0][1]), *members[1:]]


def _put(members: Members, extension: str, content: bytes) -> Members:
    return [(name, content if name == extension else old) for name, old in members]


CAPTION_NOISE: dict[str, Callable[[Scene, random.Random], str]] = {
    noise.__name__: noise
    for noise in (mismatch, mismatch_similar, alt_text, foreign, boilerplate, too_short, gibberish)
}
PICTURE_NOISE: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    noise.__name__: noise for noise in (blank, dark, tiny, strip, blurred)
}
BROKEN: dict[str, Callable[[Members, random.Random], Members]] = {
    "broken_html": _html,
    "broken_cut_picture": _cut_picture,
    "broken_empty_picture": _empty_picture,
    "broken_empty_caption": _empty_caption,
    "broken_no_caption": _no_caption,
    "broken_latin1_caption": _latin1_caption,
    "broken_json": _bad_json,
    "broken_two_pictures": _two_pictures,
}
REPEATED = ("duplicate", "repeated_uid")
"""A near copy of an earlier clean sample under a uid of its own; and an earlier clean sample itself once more."""
