import random
import time
from dataclasses import replace

import numpy as np
import pytest

from chaffinch.jobs.demo.backdrops import BACKGROUNDS
from chaffinch.jobs.demo.scenes import SIZES, Scene, Thing, draw_scene, render
from chaffinch.jobs.demo.shapes import COLOURS, SHAPES


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(render(scene), np.int16)


def changed(first: Scene, second: Scene) -> tuple[int, int, int, int]:
    """The box round all pixels in which the pictures of two scenes differ: x0, y0, x1, y1 in pixels."""
    rows, columns = np.nonzero(np.abs(pixels(first) - pixels(second)).max(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_box_is_tight_round_each_shape(name, mirrored):
    width, height = 240, 200
    down = round(90 / SHAPES[name][0] ** 0.5)
    across = round(90 * SHAPES[name][0] ** 0.5)
    box = (40 / width, 30 / height, (40 + across) / width, (30 + down) / height)
    scene = Scene(width, height, "plain", "white", 0.0, 3, (Thing(name, "purple", "", box, mirrored),))
    found = changed(scene, replace(scene, things=()))
    np.testing.assert_allclose(found, (40, 30, 40 + across, 30 + down), atol=1.01)


def test_boxes_of_drawn_scenes_cover_their_objects():
    for index in range(60):
        scene = draw_scene(random.Random(f"cover {index}"))
        for thing in scene.things:
            found = changed(replace(scene, things=(thing,)), replace(scene, things=()))
            x0, y0, x1, y1 = (
                edge * side for edge, side in zip(thing.box, (scene.width, scene.height) * 2, strict=True)
            )
            assert found[0] >= x0 - 0.51
            assert found[1] >= y0 - 0.51
            assert found[2] <= x1 + 0.51
            assert found[3] <= y1 + 0.51


def test_scenes_are_varied_and_within_bounds():
    scenes = [draw_scene(random.Random(f"varied {index}")) for index in range(1500)]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {thing.name for scene in scenes for thing in scene.things} == set(SHAPES)
    assert {thing.colour for scene in scenes for thing in scene.things} == set(COLOURS)
    assert {thing.size for scene in scenes for thing in scene.things} == set(SIZES)
    assert len(SHAPES) >= 12
    assert {1, 2, 3} <= {len(scene.things) for scene in scenes}
    for scene in scenes:
        assert min(scene.width, scene.height) >= 160
        assert max(scene.width, scene.height) <= 320
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


def test_objects_do_not_overlap():
    for index in range(300):
        things = draw_scene(random.Random(f"apart {index}")).things
        for first in range(len(things)):
            for second in range(first):
                a, b = things[first].box, things[second].box
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_same_seed_same_pixels_other_seed_others():
    first, again, other = (draw_scene(random.Random(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert render(first).tobytes() == render(again).tobytes()
    assert render(first).mode == "RGB"
    assert render(first).size == (first.width, first.height)


def test_number_of_groups_can_be_asked_for():
    for index in range(50):
        assert len({thing.name for thing in draw_scene(random.Random(index), groups=1).things}) == 1


def test_rendering_is_quick():
    scenes = [draw_scene(random.Random(index)) for index in range(40)]
    render(scenes[0])
    began = time.process_time()
    for scene in scenes:
        render(scene)
    assert (time.process_time() - began) / len(scenes) < 0.05
