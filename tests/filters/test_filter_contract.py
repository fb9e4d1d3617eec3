"""Every file in filters/ that defines a filter keeps the promises of filters/filter.py."""

import dataclasses
import importlib
import inspect
import json
import os
import pickle
import pkgutil
import types
import typing

import numpy as np
import pyarrow as pa
import pytest

import chaffinch.filters
from chaffinch.filters.filter import Filter


def defined():
    """The one public filter of each file that has one."""
    found = []
    for module in pkgutil.iter_modules(chaffinch.filters.__path__):
        if module.ispkg or module.name == "filter":
            continue
        content = importlib.import_module(f"chaffinch.filters.{module.name}")
        classes = [
            kind
            for _, kind in inspect.getmembers(content, inspect.isclass)
            if issubclass(kind, Filter) and kind.__module__ == content.__name__
        ]
        if classes:
            found.append(pytest.param(classes, id=module.name))
    return found


def example(kind):
    """An instance with a plausible value for each setting that has no default."""
    types_of = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            wanted = types_of[field.name]
            origin = typing.get_origin(wanted)
            if field.name == "column":
                values[field.name] = "metadata.x"
            elif field.name == "file":
                values[field.name] = os.devnull  # a list without entries
            elif field.name == "languages":
                values[field.name] = ("en",)
            elif origin is typing.Literal:
                values[field.name] = typing.get_args(wanted)[0]
            elif origin is tuple:
                values[field.name] = ("a",)
            else:
                values[field.name] = {str: "dino", int: 1, float: 0.5, bool: False}[wanted]
    return kind(**values)


def taught(filter_, columns):
    """The filter after as many passes over a pool of one shard as it asks for."""
    while filter_.learns:
        filter_ = filter_.with_learned(filter_.fit(filter_.count(columns)))
    return filter_


def test_the_known_filters_are_found():
    assert {"boilerplate", "column", "language"} <= {parameter.id for parameter in defined()}


@pytest.mark.parametrize("classes", defined())
class TestContract:
    def test_one_filter_per_file_named_after_it(self, classes):
        assert len(classes) == 1
        assert example(classes[0]).kind == classes[0].__module__.rpartition(".")[2]

    def test_frozen(self, classes):
        with pytest.raises(dataclasses.FrozenInstanceError):
            example(classes[0]).require = True

    def test_settings_are_keywords(self, classes):
        parameters = inspect.signature(classes[0]).parameters.values()
        assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters)

    def test_compares_hashes_and_pickles_small(self, classes):
        filter_ = example(classes[0])
        packed = pickle.dumps(filter_)
        assert len(packed) < 600
        assert pickle.loads(packed) == filter_
        assert hash(pickle.loads(packed)) == hash(filter_)

    def test_the_docstring_gives_the_score(self, classes):
        assert classes[0].__doc__.startswith("Score: ")

    def test_the_identity_is_json_and_follows_the_settings(self, classes):
        filter_ = example(classes[0])
        filter_.check()
        assert json.loads(json.dumps(filter_.identity()))["kind"] == filter_.kind
        assert filter_.identity() == example(classes[0]).identity()
        assert dataclasses.replace(filter_, aspect="other").identity() != filter_.identity()

    def test_reads_columns_of_scorers(self, classes):
        reads = example(classes[0]).reads
        assert isinstance(reads, tuple)
        assert reads
        assert all(name.count(".") == 1 for name in reads)

    def test_null_rows_cannot_be_judged(self, classes):
        filter_ = example(classes[0])
        for n in (0, 3):
            columns = types.MappingProxyType({name: pa.nulls(n) for name in filter_.reads})
            scores = taught(filter_, columns).score(columns)
            assert scores.dtype == np.float32
            assert scores.shape == (n,)
            assert np.isnan(scores).all()

    def test_what_is_learned_is_json_and_no_setting(self, classes):
        filter_ = example(classes[0])
        assert filter_.learned is None
        one = taught(filter_, {name: pa.nulls(3) for name in filter_.reads})
        assert json.loads(json.dumps(one.learned)) == one.learned
        assert one == filter_
        assert one.identity() == filter_.identity()
        assert not dataclasses.replace(one).learned
