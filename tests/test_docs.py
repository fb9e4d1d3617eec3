"""The documentation says what the code does: pages made from code are fresh, links lead somewhere, examples run."""

import doctest
import json
import re
import sys
from pathlib import Path

import pytest

import chaffinch.filters
import chaffinch.filters.label_models
import chaffinch.scoring
from chaffinch.jobs import kinds
from chaffinch.jobs.config import load_config
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]


def test_the_page_of_kinds_is_what_the_code_says():
    assert (ROOT / "docs" / "kinds.md").read_text() == kinds.page(), "run: chaffinch kinds --page > docs/kinds.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_package_of_label_models_shows_a_true_example():
    assert doctest.testmod(chaffinch.filters.label_models).failed == 0


def blocks(language):
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            yield pytest.param(text, id=f"{page.name}-{number}")


@pytest.mark.parametrize("text", [*blocks("yaml")])
def test_configs_in_the_documentation_are_valid(text, tmp_path, monkeypatch):
    """Every whole config on a page passes the check; pools and weights it names are put in place."""
    if not re.search(r"^input:", text, re.MULTILINE):
        pytest.skip("a part of a config")
    monkeypatch.chdir(tmp_path)
    for folder in set(re.findall(r"(?:pools|curated)/[a-z0-9/-]+", text)):
        write_clean(folder, samples=2, shard_size=2, seed=0)
    for weights in set(re.findall(r"weights/[a-z0-9.-]+", text)):
        Path(weights).parent.mkdir(exist_ok=True)
        Path(weights).write_bytes(b"only looked for, not read")
    text = re.sub(r"^.*metadata\.clip.*\n", "", text, flags=re.MULTILINE)  # columns that only a DataComp pool has
    Path("config.yaml").write_text(text)
    load_config("config.yaml", [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_in_the_documentation_runs(page, tmp_path, monkeypatch, capsys):
    """From top to bottom in one folder, as a reader would type it, and prints what is shown below it.

    Digits do not count: the last ones depend on the machine.
    """
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "documentation"}
    for text, shown in re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", page.read_text(), re.DOTALL):
        exec(compile(text, "documentation", "exec"), names)
        printed = capsys.readouterr().out
        assert not shown or re.sub(r"\d", "0", printed) == re.sub(r"\d", "0", shown)


def test_the_filter_and_the_scorer_of_the_guide_work_from_the_command_line(tmp_path, monkeypatch, capsys):
    """Both files, as the guide has them, put where the packages look for theirs."""
    page = (ROOT / "docs" / "extending.md").read_text()
    for package, name in ((chaffinch.filters, "filters/word_length.py"), (chaffinch.scoring, "scoring/redness.py")):
        found = re.search(rf"```python\n(# {name}\n.*?)```", page, re.DOTALL)
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(found[1])
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(path.parent)])
    kinds._classes.cache_clear()
    write_clean(tmp_path / "pool", samples=8, shard_size=8, seed=0)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"input: {tmp_path / 'pool'}\noutput: {tmp_path / 'out'}\nscorers: {{redness: {{}}}}\n"
        "filters:\n  word_length: {}\n  red: {column: redness.redness, keep: [0, 0.9]}\nkeep: {fraction: 1.0}\n"
    )
    try:
        assert main(["kinds", "word_length"]) == 0
        assert "mean characters per word" in capsys.readouterr().out
        assert main(["run", str(config), "--quiet"]) == 0
    finally:
        kinds._classes.cache_clear()
        for module in ("chaffinch.filters.word_length", "chaffinch.scoring.redness"):
            sys.modules.pop(module, None)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["filters"]["word_length"]["coverage"] == 1
    assert summary["filters"]["red"]["keep"] == 1
