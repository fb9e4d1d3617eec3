"""`chaffinch demo`: make a small pool with known noise, curate it, show what was caught."""

import re
import shutil
from importlib import resources
from pathlib import Path

import yaml

from chaffinch.jobs.console import Console
from chaffinch.jobs.demo.comparison import compare
from chaffinch.jobs.demo.pool import write_clean, write_pool
from chaffinch.jobs.run import run_command
from chaffinch.jobs.train import train
from chaffinch.scoring.weights import digest_all

_TRUSTED = 300


def run_demo(folder: str, samples: int, seed: int, console: Console) -> None:
    """Renders a pool, trains a small CLIP on it, curates the pool, and compares with what was planted.

    Args:
        folder: where pool, config and curated shards go.
        samples: size of the pool.
        seed: of the pool.
        console: where messages go.
    """
    place = Path(folder)
    console.say(f"rendering {samples} samples, about half of them spoiled, into {place / 'pool'}")
    before = _digest(place / "pool")
    write_pool(place / "pool", samples=samples, seed=seed)
    write_clean(place / "trusted", samples=_TRUSTED, seed=seed)
    if _digest(place / "pool") != before:
        shutil.rmtree(place / "current", ignore_errors=True)  # trained on another pool
    config = place / "demo.yaml"
    if config.exists() and config.read_text(encoding="utf-8") != config_for(place):
        console.say(f"{config} was changed and is used as it is; remove it to have the demo's own again")
    else:
        config.write_text(config_for(place), encoding="utf-8")
    if "train" in yaml.safe_load(config.read_text(encoding="utf-8")):
        train(str(config), [], console)
    run_command("run", str(config), [], console)
    if not console.json:
        console.result(f"\n{compare(place / 'pool' / 'truth.parquet', place / 'curated')}")
        report = place / "curated" / "report.html"
        console.say(f"\nopen {report}   config: {config}   kept shards: {place / 'curated' / 'shards'}")


def _digest(pool: Path) -> str:
    """Of all that the pool's shards hold."""
    return digest_all(list(pool.glob("*.tar")))


def config_for(place: Path) -> str:
    """The demo's config.

    Args:
        place: the folder that holds `pool` and `trusted`, and will hold `curated`.

    Returns:
        YAML.
    """
    own = resources.files("chaffinch.jobs.demo")
    template = own.joinpath("demo.yaml").read_text(encoding="utf-8")
    places = {"FOLDER": place.as_posix()}
    places |= {"MATCHER": str(own.joinpath("matcher.pt")), "DETECTOR": str(own.joinpath("detector.onnx"))}
    return re.sub("|".join(places), lambda found: places[found[0]], template)
