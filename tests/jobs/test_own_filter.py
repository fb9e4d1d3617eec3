"""Writing a filter: edited and tried again in the same experiment."""

import importlib
import json
import re
import sys

import chaffinch.filters
from chaffinch.jobs import experiment, kinds
from chaffinch.jobs.main import main

FILTER = '''\
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.filter import Filter


@dataclass(frozen=True, kw_only=True)
class Own(Filter):
    """Score: for a test."""

    @property
    def reads(self):
        return ("captions.words",)

    def score(self, columns):
        return RESULT
'''


def test_a_filter_is_judged_again_when_its_code_changes_and_named_when_it_fails(config, tmp_path, monkeypatch, capsys):
    """As whoever writes a filter goes about it: the same config and output again and again."""
    folder = tmp_path / "filters"
    folder.mkdir()
    monkeypatch.setattr(chaffinch.filters, "__path__", [*chaffinch.filters.__path__, str(folder)])
    path = config("input: {pool}\noutput: {output}\nfilters:\n  own: {{keep: [1, null]}}\nrun: {{max_rejected: 0.2}}\n")

    def decide(result: str) -> tuple[int, str]:
        (folder / "own.py").write_text(FILTER.replace("RESULT", result))
        for cached in (kinds._classes, experiment._code):
            cached.cache_clear()
        sys.modules.pop("chaffinch.filters.own", None)
        importlib.invalidate_caches()
        status = main(["decide", str(path)])
        return status, capsys.readouterr().err

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    try:
        (folder / "own.py").write_text(FILTER.replace("RESULT", "np.ones(len(columns['captions.words']), np.float32)"))
        kinds._classes.cache_clear()
        assert main(["run", str(path), "--quiet"]) == 0
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["dropped"] == 0
        status, said = decide("np.zeros(len(columns['captions.words']), np.float32)")
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert (status, summary["kept"]) == (0, 0)
        assert re.search(r"kept 0 samples; before, it was \d+", said)
        assert "are of an earlier decision: run `chaffinch run`" in said
        for result, problem in (
            ("1 / 0", "filter kind own on shard 0.*: ZeroDivisionError: division by zero"),
            ("3", "filter kind own on shard 0.*: score returned int, not one float32 for each"),
            ("np.zeros(3, np.float32)", r"score returned the shape \(3,\), not one float32 for each"),
        ):
            status, said = decide(result)
            assert status == 1
            assert re.search(problem, said), said
    finally:
        for cached in (kinds._classes, experiment._code):
            cached.cache_clear()
        sys.modules.pop("chaffinch.filters.own", None)
