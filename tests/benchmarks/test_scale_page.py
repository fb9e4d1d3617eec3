"""docs/scale.md: its table is recomputed from benchmarks/results and from the few figures of others that it names."""

import json
import re
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scale.md"
SHARDS, SAMPLES, KEPT = 128_000, 1.28e9, 0.3 * 1.28e9
POOL_TERABYTES = 45  # DataComp's README, large
CLIP_PER_SECOND = 1500  # clip-retrieval's README, one RTX 3080
DINO_PER_SECOND = 8.37  # Grounding DINO's paper


def figures(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["figures"]


def hours(seconds_per_sample):
    return SAMPLES * seconds_per_sample / 3600


def table_bytes():
    redecide = figures("redecide")
    return redecide["store_mib"] * 2**20 / redecide["rows"] * SAMPLES


def opens():
    return figures("launches-decide")["opens_per_shard"]


EXPECTED = {
    "captions and pictures": lambda: hours(figures("growth")["score"]["cpu_microseconds_per_sample"][-1] / 1e6),
    "light detector": lambda: hours(figures("detection")["cpu_milliseconds_per_photo"] / 1e3),
    "CLIP ViT-B/32 on CPUs": lambda: hours(figures("mimic")["models"]["ViT-B-32"]["plain_ms_a_sample"] / 1e3),
    "CLIP ViT-B/32 on GPUs": lambda: hours(1 / CLIP_PER_SECOND),
    "exact mimic scores of it": lambda: hours(
        figures("mimic")["models"]["ViT-B-32"]["ratios"]["exact"] / CLIP_PER_SECOND
    ),
    "Grounding DINO, every sample": lambda: hours(1 / DINO_PER_SECOND),
    "Grounding DINO, where 30% are left": lambda: 0.3 * hours(1 / DINO_PER_SECOND),
    "pool, read once to score": lambda: POOL_TERABYTES,
    "tables of six scorers, four numbers each": lambda: table_bytes() / 1e9,
    "two embeddings of 512 as float16": lambda: SAMPLES * 2 * 512 * 2 / 1e12,
    "decisions": lambda: (
        SAMPLES * figures("plan")["mixed"]["rounds"][0]["decisions_bytes"][1]
        / figures("plan")["mixed"]["rounds"][0]["samples"][1] / 1e9
    ),
    "decide, first time": lambda: hours(
        (figures("growth")["decide"]["cpu_microseconds_per_sample"][-1]
         + figures("launches-repeats")["cpu_microseconds_per_sample"]) / 1e6
    ),
    "decide, again with another range": lambda: hours(median(figures("redecide")["cpu_seconds"]) / 12.8e6),
    "emit, CPU": lambda: hours(figures("growth")["emit"]["cpu_microseconds_per_sample"][-1] / 1e6),
    "emit, bytes read and written": lambda: 0.3 * POOL_TERABYTES,
    "launch with nothing to do": lambda: figures("launches-score")["launches"]["nothing_to_do"]["cpu_seconds"],
    "its driver": lambda: figures("launches-score")["launches"]["nothing_to_do"]["driver_mib"],
    "LIST requests of a launch": lambda: 8 * SHARDS / 1000,
    "PUT requests of scoring": lambda: 8 * SHARDS / 1e6,
    "GET requests of deciding": lambda: opens() * SHARDS / 1e6,
}  # fmt: skip


def rows():
    """First cell -> the number at the beginning of the second."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"\| (?P<name>[^|]+?) +\| (?P<value>[\d,.]+)", line):
            found[match["name"]] = match["value"]
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_the_page_says_what_was_measured(name):
    """To all the digits that the page shows."""
    said = rows()[name].replace(",", "")
    digits = len(said.partition(".")[2])
    if digits:
        assert said == f"{EXPECTED[name]():.{digits}f}"
    else:
        # Whole numbers are rounded to what they end in: 61,000 to a thousand.
        zeros = len(said) - len(said.rstrip("0"))
        assert int(said) == round(EXPECTED[name](), -zeros)


def test_the_page_names_only_results_that_are_there():
    named = re.findall(r"`([\w-]+\.json)`", PAGE.read_text())
    assert named
    for name in named:
        assert (ROOT / "benchmarks" / "results" / name).exists() or name in ("fitted.json", "timings.json")
