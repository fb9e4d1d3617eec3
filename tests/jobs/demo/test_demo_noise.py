import io
import json
import random

import numpy as np
import pytest
from PIL import Image, ImageStat, UnidentifiedImageError

from chaffinch.jobs.demo import noise
from chaffinch.jobs.demo.grammar import describe, group_things
from chaffinch.jobs.demo.scenes import draw_scene, render
from chaffinch.jobs.demo.shapes import SHAPES


def scenes(count: int):
    return [draw_scene(random.Random(f"noise {index}")) for index in range(count)]


def said(name: str, caption: str) -> bool:
    """Whether a caption names an object, in the singular or the plural."""
    words = caption.lower().replace(",", " ").replace(".", " ").split()
    return any(word in words for word in (name, f"{name}s", f"{name}es"))


@pytest.mark.parametrize("kind", noise.CAPTION_NOISE)
def test_caption_noise_is_drawn_from_its_seed(kind):
    scene = scenes(1)[0]
    spoil = noise.CAPTION_NOISE[kind]
    assert spoil(scene, random.Random(3)) == spoil(scene, random.Random(3))
    assert len({spoil(scene, random.Random(index)) for index in range(40)}) > 3


def test_mismatch_names_nothing_that_is_shown():
    for scene in scenes(100):
        caption = noise.mismatch(scene, random.Random(1))
        assert not any(said(thing.name, caption) for thing in scene.things)
        assert any(said(name, caption) for name in SHAPES)


def test_similar_mismatch_is_wrong_about_the_largest_thing():
    for scene in scenes(200):
        caption = noise.mismatch_similar(scene, random.Random(2)).lower()
        largest = group_things(scene)[0].things[0]
        assert f"{largest.colour} {largest.name}" not in caption
        assert said(largest.name, caption) or largest.colour in caption


@pytest.mark.parametrize("kind", ["alt_text", "boilerplate", "gibberish"])
def test_strange_text_names_no_object(kind):
    scene = scenes(1)[0]
    for index in range(300):
        caption = noise.CAPTION_NOISE[kind](scene, random.Random(index))
        assert not any(said(name, caption) for name in SHAPES), caption
        assert "{" not in caption or kind == "gibberish"


def test_short_captions_have_one_or_two_words():
    for scene in scenes(50):
        assert 1 <= len(noise.too_short(scene, random.Random(4)).split()) <= 2


@pytest.mark.parametrize("kind", noise.PICTURE_NOISE)
def test_picture_noise_gives_rgb_pictures(kind):
    picture = render(scenes(1)[0])
    spoiled = noise.PICTURE_NOISE[kind](picture, random.Random(5))
    assert spoiled.mode == "RGB"
    assert spoiled.tobytes() != picture.tobytes()


def test_spoiled_pictures_are_what_they_are_called():
    for index, scene in enumerate(scenes(20)):
        picture, rng = render(scene), random.Random(index)
        assert len(noise.blank(picture, rng).getcolors()) <= 2
        assert ImageStat.Stat(noise.dark(picture, rng).convert("L")).mean[0] < 24
        assert max(noise.tiny(picture, rng).size) <= 40
        banner = noise.strip(picture, rng).size
        assert max(banner) / min(banner) >= 6
        soft = np.asarray(noise.blurred(picture, rng).convert("L"), float)
        assert np.abs(np.diff(soft)).mean() < 0.5 * np.abs(np.diff(np.asarray(picture.convert("L"), float))).mean()


def test_near_copies_look_alike_but_differ():
    for index, scene in enumerate(scenes(20)):
        picture = render(scene)
        copy = noise.near_copy(picture, random.Random(index))
        small, again = (np.asarray(each.convert("L").resize((9, 8)), float) for each in (picture, copy))
        assert copy.tobytes() != picture.tobytes()
        assert np.corrcoef(small.ravel(), again.ravel())[0, 1] > 0.7


def members() -> noise.Members:
    scene = scenes(1)[0]
    buffer = io.BytesIO()
    render(scene).save(buffer, "JPEG")
    caption = describe(scene, random.Random(0))
    return [("jpg", buffer.getvalue()), ("txt", caption.encode()), ("json", b'{"uid": "ab", "width": 3}')]


def test_each_broken_kind_is_broken_in_its_way():
    whole = members()
    broken = {kind: breaker(whole, random.Random(6)) for kind, breaker in noise.BROKEN.items()}
    assert dict(broken["broken_html"])["jpg"].startswith(b"<!DOCTYPE html>")
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(dict(broken["broken_html"])["jpg"]))
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(dict(broken["broken_cut_picture"])["jpg"])).load()
    assert dict(broken["broken_empty_picture"])["jpg"] == b""
    assert dict(broken["broken_empty_caption"])["txt"].strip() == b""
    assert [name for name, _ in broken["broken_no_caption"]] == ["jpg", "json"]
    with pytest.raises(UnicodeDecodeError):
        dict(broken["broken_latin1_caption"])["txt"].decode()
    with pytest.raises(json.JSONDecodeError):
        json.loads(dict(broken["broken_json"])["json"])
    assert [name for name, _ in broken["broken_two_pictures"]] == ["jpg", "jpeg", "txt", "json"]
    assert all(sample != whole for sample in broken.values())
