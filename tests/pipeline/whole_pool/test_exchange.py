"""The exchange against dictionaries: what is sent arrives, and what is found comes back to who sent it."""

import itertools
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.pipeline.whole_pool.exchange import Exchange, Group, group_cells

RECORD = np.dtype([("key", "<f2", (3,)), ("name", "<u8")])
CELLS = 7


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, CELLS - 1), max_size=12), min_size=1, max_size=5), st.integers(1, 20))
def test_what_is_sent_arrives_and_comes_back(shards, most):
    """Every record finds itself, numbered, in its cell; the number it gets there comes back to its owner."""
    names = [f"group/{number}" for number in range(len(shards))]
    with tempfile.TemporaryDirectory() as folder:
        exchange = Exchange(folder, names)
        sizes = np.zeros(CELLS, np.int64)
        for number, (name, cells) in enumerate(zip(names, shards, strict=True)):
            records = np.zeros(len(cells), RECORD)
            records["name"] = np.arange(len(cells)) + 1000 * number
            records["key"] = np.arange(len(cells))[:, None] + [0.5, 0.25, 0]
            assert not exchange.has(name)
            exchange.send(name, np.array(cells, np.int64), CELLS, records, np.arange(len(cells)))
            assert exchange.has(name)
            sizes += exchange.sizes(name, CELLS)
        assert sizes.tolist() == np.bincount([cell for cells in shards for cell in cells], minlength=CELLS).tolist()
        groups = group_cells(sizes, most)
        for group in groups:
            records, cells, sent = exchange.receive(group, CELLS, RECORD)
            wanted = [
                (1000 * number + row, cell)
                for number, shard in enumerate(shards)
                for cell in range(group.first, group.last)
                for row, one in enumerate(shard)
                if one == cell
            ]
            assert list(zip(records["name"].tolist(), cells.tolist(), strict=True)) == wanted
            assert (records["key"][:, 0] == records["name"] % 1000 + 0.5).all()
            assert not exchange.is_answered(group)
            exchange.answer(group, sent, records["name"].astype(np.float32))
            assert exchange.is_answered(group)
        for number, (name, cells) in enumerate(zip(names, shards, strict=True)):
            owners = exchange.owners(name, CELLS, RECORD)
            assert sorted(owners.tolist()) == list(range(len(cells)))
            assert exchange.answers(number, groups).tolist() == (owners + 1000 * number).tolist()


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 40))
def test_groups_hold_all_cells_in_order_and_not_too_much(sizes, most):
    groups = group_cells(np.array(sizes, np.int64), most)
    assert [cell for group in groups for cell in range(group.first, group.last)] == list(range(len(sizes)))
    for group in groups:
        held = sizes[group.first : group.last]
        assert group.size == sum(held)
        assert sum(held) <= most or len(held) == 1
    for one, other in itertools.pairwise(groups):
        assert sum(sizes[one.first : one.last]) + sizes[other.first] > most


def test_a_file_that_was_cut_is_noticed(tmp_path):
    exchange = Exchange(str(tmp_path), ["a"])
    exchange.send("a", np.array([0, 1]), 2, np.zeros(2, RECORD), np.arange(2))
    path = tmp_path / "sent" / "a.rows"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OSError, match="shorter than when it was written"):
        exchange.owners("a", 2, RECORD)
    path.write_bytes(path.read_bytes()[:26])
    with pytest.raises(OSError, match="shorter than when it was written"):
        exchange.receive(Group(0, 2, 2), 2, RECORD)
