"""Which scorer comes after which: what they read, what they wait for, and circles."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pytest

from chaffinch.filters.column import Column
from chaffinch.pipeline.measuring.order import Order
from chaffinch.scoring.scorer import Scorer


@dataclass(frozen=True)
class Some(Scorer):
    """Columns: x."""

    inputs: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return self.inputs

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        return {"x": pa.float32()}


def veto(column: str) -> Column:
    return Column(column=column, keep=(0.0, None), require=True)


def test_scorers_that_read_nothing_are_one_level():
    order = Order.of({"a": Some(), "b": Some()}, {"f": veto("a.x")})
    assert order.levels == [["a", "b"]]
    assert order.gates == {}


def test_a_scorer_comes_after_those_it_reads():
    order = Order.of({"c": Some(("b.x",)), "b": Some(("a.x", "metadata.y")), "a": Some()}, {})
    assert order.levels == [["a"], ["b"], ["c"]]
    assert order.reads == {"c": ("b",), "b": ("a",), "a": ()}


def test_one_that_skips_samples_waits_for_the_required_filters():
    filters = {"f": veto("a.x"), "g": Column(column="b.x", keep=(0.0, None)), "h": veto("metadata.y")}
    order = Order.of({"big": Some(where="required"), "a": Some(), "b": Some()}, filters)
    assert order.gates == {"big": ("f", "h")}
    assert order.levels == [["a", "b"], ["big"]]


def test_it_does_not_wait_for_filters_over_its_own_columns_or_what_reads_them():
    scorers = {"big": Some(where="required"), "head": Some(("big.x",)), "a": Some()}
    order = Order.of(scorers, {"own": veto("big.x"), "head": veto("head.x"), "f": veto("a.x")})
    assert order.gates == {"big": ("f",)}
    assert order.levels == [["a"], ["big"], ["head"]]


def test_of_several_the_first_waits_for_none_of_the_others():
    scorers = {"one": Some(where="required"), "two": Some(where="required"), "a": Some()}
    order = Order.of(scorers, {"f": veto("one.x"), "g": veto("two.x"), "h": veto("a.x")})
    assert order.gates == {"one": ("h",), "two": ("f", "h")}
    assert order.levels == [["a"], ["one"], ["two"]]


def test_one_that_reads_a_later_one_does_not_make_it_wait_for_itself():
    scorers = {"one": Some(("two.x",), where="required"), "two": Some(where="required"), "a": Some()}
    order = Order.of(scorers, {"f": veto("one.x"), "g": veto("a.x")})
    assert order.gates == {"one": ("g",), "two": ("g",)}
    assert order.levels == [["a"], ["two"], ["one"]]


@pytest.mark.parametrize(
    "scorers", [{"a": Some(("b.x",)), "b": Some(("a.x",)), "c": Some()}, {"a": Some(("a.x",)), "b": Some()}]
)
def test_a_circle_is_refused_by_name(scorers):
    with pytest.raises(ValueError, match="wait for each other: a"):
        Order.of(scorers, {"f": veto("c.x")})
