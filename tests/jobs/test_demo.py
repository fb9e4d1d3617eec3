import re

import pytest

from chaffinch.jobs.demo.shapes import SHAPES
from chaffinch.jobs.main import main

SIZE = "--samples 600 --seed 4"


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert main(["demo", *SIZE.split(), str(folder)]) == 0
    return "\n".join(lines), folder


def test_the_ensemble_beats_its_best_filter_and_their_majority(printed):
    text, _ = printed
    found = {
        name: float(f1) for name, f1 in re.findall(r"^(the ensemble|majority|best filter).*\s([0-9.]+)$", text, re.M)
    }
    assert set(found) == {"the ensemble", "majority", "best filter"}
    assert found["the ensemble"] > found["best filter"]
    assert found["the ensemble"] > found["majority"]


def test_it_shows_every_planted_kind_and_where_the_report_is(printed):
    text, folder = printed
    for kind in ("clean", "mismatch", "foreign", "boilerplate", "blurred", "duplicate", "repeated_uid", "broken"):
        assert re.search(rf"^{kind}\s+\d+", text, re.M), kind
    assert str(folder / "curated" / "report.html") in text
    assert (folder / "curated" / "report.html").is_file()


def test_the_report_draws_what_the_detector_found(printed):
    _, folder = printed
    page = (folder / "curated" / "report.html").read_text()
    labels = re.findall(r'<span class="box"[^>]*>(?:<[^>]*>)*([a-z]+) [01]\.[0-9]{2}', page)
    assert len(labels) > 50
    assert set(labels) <= set(SHAPES)


def test_the_config_it_leaves_can_be_changed_and_run_again(printed, capsys):
    _, folder = printed
    assert main(["decide", str(folder / "demo.yaml"), "keep={fraction: 0.1}", "--quiet"]) == 0
    assert "kept 10.0% of what could be used" in capsys.readouterr().out


def test_run_again_it_keeps_what_was_changed_and_measures_nothing_twice(printed, capsys, snapshot):
    """The last of these tests: the folder is not afterwards what the demo left."""
    _, folder = printed
    config = folder / "demo.yaml"
    config.write_text(config.read_text().replace("keep: [4, null]", "keep: [5, null]"))
    before = snapshot(folder / "store")
    assert main(["demo", *SIZE.split(), str(folder)]) == 0
    assert "demo.yaml was changed and is used as it is" in capsys.readouterr().err
    assert "keep: [5, null]" in config.read_text()
    assert snapshot(folder / "store") == before
    assert before
