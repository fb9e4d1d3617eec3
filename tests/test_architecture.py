"""Who may import whom. Scoring and filters meet only in score tables; Beam stays in pipeline and jobs."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("scoring", "filters", "pipeline", "jobs")
MAY_IMPORT = {
    "scoring": {"scoring"},
    "filters": {"filters"},
    "pipeline": {"scoring", "filters", "pipeline"},
    "jobs": {"scoring", "filters", "pipeline", "jobs"},
}
HEAVY = {"torch", "torchvision", "open_clip", "transformers", "faiss", "onnx", "onnxruntime"}


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path, top_level=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_keep_to_their_neighbours(folder):
    for path in modules(folder):
        for name in imports(path):
            if name.startswith("chaffinch."):
                assert name.split(".")[1] in MAY_IMPORT[folder], f"{path} imports {name}"


@pytest.mark.parametrize("folder", ["scoring", "filters"])
def test_beam_stays_out_of_measuring_and_judging(folder):
    for path in modules(folder):
        assert not any(name.startswith("apache_beam") for name in imports(path)), path


@pytest.mark.parametrize("folder", ["filters", "pipeline", "jobs"])
def test_torch_stays_in_scoring(folder):
    for path in modules(folder):
        assert not {name.split(".")[0] for name in imports(path)} & HEAVY, path


def test_scorers_do_not_load_torch_to_be_looked_at():
    """Deciding reads scorers' settings and columns; it must not wait for a library of models."""
    for path in (ROOT / "scoring").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY, path


def test_filters_see_no_pixels():
    for path in modules("filters"):
        assert not any(name.split(".")[0] == "PIL" for name in imports(path)), path


def test_every_subpackage_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        "chaffinch." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(settings["packages"]) == found
    assert settings["package-dir"] == {"chaffinch": "."}


def test_every_folder_of_modules_is_a_package():
    for folder in FOLDERS:
        for path in modules(folder):
            assert (path.parent / "__init__.py").is_file(), path.parent


def test_the_top_level_is_what_the_readme_says():
    known = {*FOLDERS, "tests", "benchmarks", "docs", "examples"}
    tracked = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert {name for name in tracked if not name.startswith(".")} - {"build"} <= known
