"""Builders of small real pools, made from bytes; fixtures because test modules do not import each other."""

import functools
import gc
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# Two processes of tests share the cores: more threads would wait for each other. Libraries ask when they are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing is fetched, and what cannot be had is told at once, not after some retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import numpy as np
import pytest
from PIL import Image

from chaffinch.pipeline.shards import Shard, find_shards

# The same examples every time; `--hypothesis-profile=search` looks for new ones, and for many more.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("steady")

Members = Sequence[tuple[str, bytes]]
LAST = ("jobs", "pipeline", "scoring", "filters")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole commands come first and those of single functions last: when one process of tests has nothing left
    to do, what the other still does is short.
    """

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return LAST.index(folder) if folder in LAST else -1

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """What was imported to collect the tests stays to the end: the product collects garbage after each scorer, and need
    not look through a million objects of all test modules each time.
    """
    gc.collect()
    gc.freeze()


def _make_tar(members: Members, form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A whole archive, padded to records as tar does."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def _picture(seed: int = 0, size: tuple[int, int] = (24, 16), form: str = "JPEG") -> bytes:
    """A picture of coloured noise; other seeds give other bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


def _uid(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sample(key: str, seed: int = 0, caption: str | None = None, uid: str | None = None) -> list[tuple[str, bytes]]:
    """The three members of a good sample; its uid follows from its key unless given."""
    text = f"a picture of number {seed} for {key}" if caption is None else caption
    described = {"uid": uid or _uid(key), "url": f"https://example.org/{key}"}
    return [
        (f"{key}.jpg", _picture(seed)),
        (f"{key}.txt", text.encode()),
        (f"{key}.json", json.dumps(described).encode()),
    ]


def _write_shard(path: Path, members: Members, form: int = tarfile.USTAR_FORMAT) -> Shard:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_make_tar(members, form))
    return next(shard for shard in find_shards(str(path.parent)) if shard.path == str(path))


def _shard_of(path: Path, data: bytes) -> Shard:
    """Writes any bytes as a shard."""
    path.write_bytes(data)
    return Shard(path.stem, str(path), len(data), path.stat().st_mtime)


def _small_pool(folder: Path, shards: int = 3, samples: int = 6) -> Path:
    """A pool of good samples with names that follow img2dataset's."""
    for shard in range(shards):
        members = [
            member for row in range(samples) for member in _sample(f"{shard:08d}{row:04d}", shard * samples + row)
        ]
        _write_shard(folder / f"{shard:08d}.tar", members)
    return folder


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file: equal where nothing was written again."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            status = path.stat()
            found[str(path.relative_to(folder))] = (status.st_ino, status.st_mtime_ns)
    return found


def _digests(folder: Path) -> dict[str, str]:
    """A digest of every file's content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _load_module(path: Path) -> ModuleType:
    """A module by its file: pytest's importlib mode puts no folder on the path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_tar() -> Callable[..., bytes]:
    """(members, form) -> the bytes of an archive."""
    return _make_tar


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """(seed, size, form) -> the bytes of a picture."""
    return _picture


@pytest.fixture(scope="session")
def uid_of() -> Callable[[str], str]:
    """The uid that `sample` gives to a key."""
    return _uid


@pytest.fixture(scope="session")
def sample() -> Callable[..., list[tuple[str, bytes]]]:
    """(key, seed, caption, uid) -> the members of a good sample."""
    return _sample


@pytest.fixture(scope="session")
def write_shard() -> Callable[..., Shard]:
    """(path, members, form) -> a shard on disk."""
    return _write_shard


@pytest.fixture(scope="session")
def shard_of() -> Callable[[Path, bytes], Shard]:
    """(path, bytes) -> a shard on disk with exactly these bytes."""
    return _shard_of


@pytest.fixture(scope="session")
def small_pool() -> Callable[..., Path]:
    """(folder, shards, samples) -> a folder of good samples."""
    return _small_pool


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """(folder) -> inode and time of every file below."""
    return _snapshot


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """(folder) -> a digest of every file below."""
    return _digests


@pytest.fixture(scope="session")
def small_detector(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """(family) -> the folder of a small zero-shot detector with random weights; the benchmarks' own."""
    module = _load_module(Path(__file__).parents[1] / "benchmarks" / "small_detectors.py")

    @functools.cache
    def write(family: str) -> Path:
        return module.write_detector(tmp_path_factory.mktemp("detectors") / family, family)

    return write


@pytest.fixture(scope="session")
def colour_detector(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(side, trunk, spoil) -> the .onnx file of a light detector of red and blue."""
    module = _load_module(Path(__file__).with_name("light_detector.py"))

    @functools.cache
    def write(**settings: Any) -> Path:
        return module.write_detector(tmp_path_factory.mktemp("light") / "colours.onnx", **settings)

    return write


@pytest.fixture(scope="session")
def slow_detector() -> ModuleType:
    """What zero-shot detectors find by transformers' own processing, one picture at a time."""
    return _load_module(Path(__file__).with_name("slow_detector.py"))


@pytest.fixture(scope="session")
def fault_scene() -> ModuleType:
    """Runs that are disturbed by killing one of their processes; the benchmarks' own."""
    return _load_module(Path(__file__).parents[1] / "benchmarks" / "fault_scene.py")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """(options) -> a small disk in memory; skips where none may be mounted."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
