"""Boxes of a detector are drawn over the pictures."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.main import main
from chaffinch.jobs.pages.pictures import find_detectors, read_boxes
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.store import Store

SHARD = Shard("00000000", "", 0, 0.0)
BOXES = [
    [[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]],
    [],
    None,
    [[-0.5, 0.25, 2.0, 0.75], [float("nan"), 0, 1, 1], [0.1, 0.1]],
    [[i / 100, 0, 1, 1] for i in range(40)],
]
CONFIDENCES = [[0.4, 0.9], [], None, [0.5, 0.5, 0.5], [i / 100 for i in range(40)]]
PHRASES = [["a <b>red</b> ball", None], [], None, ["x", "y", "z"], ["thing"] * 40]


@pytest.fixture
def source(tmp_path):
    store = Store(str(tmp_path))
    for folder, columns in {
        "dino-00000000": {
            "boxes": pa.array(BOXES, pa.list_(pa.list_(pa.float32()))),
            "confidences": pa.array(CONFIDENCES, pa.list_(pa.float32())),
            "phrases": pa.array(PHRASES, pa.list_(pa.string())),
        },
        "plain-00000000": {"boxes": pa.array([[[0, 0, 0.5, 0.5]]] * 5, pa.list_(pa.list_(pa.float32())))},
        "words-00000000": {"words": pa.array(np.ones(5, np.float32))},
    }.items():
        path = tmp_path / "scores" / folder / "00000000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path)
    tables = {name: f"{name}-00000000" for name in ("words", "dino", "plain", "missing")}
    return Source(store, tables, Metadata("none"))


def test_scorers_with_boxes_are_found_by_their_columns(source):
    assert find_detectors(source, SHARD) == ["dino", "plain"]


def test_boxes_are_shares_of_the_picture_the_surest_first(source):
    boxes = read_boxes(source, ["dino"], SHARD, np.array([0, 1, 2, 3, 4]))
    whole, ball = boxes[0]
    assert whole.label == "0.90"
    assert ball.label == "a <b>red</b> ball 0.40"
    assert (ball.left, ball.top, ball.width, ball.height) == pytest.approx((0.1, 0.2, 0.4, 0.4))
    assert boxes[1] == boxes[2] == []
    (clipped,) = boxes[3]  # what is no box is not drawn
    assert (clipped.left, clipped.top, clipped.width, clipped.height) == (0, 0.25, 1, 0.5)
    assert [box.label for box in boxes[4]] == [f"thing {i / 100:.2f}" for i in range(39, 27, -1)]


def test_boxes_of_several_detectors_are_drawn_together(source):
    boxes = read_boxes(source, ["dino", "plain"], SHARD, np.array([3, 0]))
    assert [len(found) for found in boxes] == [2, 3]
    assert boxes[0][1].label == ""


def test_the_page_draws_boxes_where_a_detector_ran(rendered_pool, write_config, tmp_path, parse):
    one = write_config(tmp_path, rendered_pool)
    assert main(["run", str(one.config), "--quiet"]) == 0
    # As a detector's table will be: more columns beside those that filters read.
    for path in (tmp_path / "store" / "scores").glob("pictures-*/*.parquet"):
        table = pq.read_table(path)
        boxes = pa.array([[[0.25, 0.5, 0.75, 1.0]]] * table.num_rows, pa.list_(pa.list_(pa.float32())))
        phrases = pa.array([["<u>a ball</u>"]] * table.num_rows, pa.list_(pa.string()))
        pq.write_table(table.append_column("boxes", boxes).append_column("phrases", phrases), path)
    assert main(["report", str(one.config), "--quiet"]) == 0
    cards = parse(one.page).find("article", "card")
    drawn = [card.find("span", "box") for card in cards if card.find("img")]
    assert drawn
    assert all(len(boxes) == 1 for boxes in drawn)
    (box,) = drawn[0]
    assert box.attributes["style"] == "left:25.00%;top:50.00%;width:50.00%;height:50.00%"
    assert box.words == "<u>a ball</u>"
    assert not any(card.find("span", "box") for card in cards if card.find("p", "placeholder"))
