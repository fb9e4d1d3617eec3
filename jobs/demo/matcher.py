"""Makes the small CLIP that can tell whether a rendered scene and its caption match.

    python -m chaffinch.jobs.demo.matcher FOLDER

renders clean scenes, none of which is in a pool of `write_pool`, trains chaffinch-tiny on them and writes
FOLDER/matcher.pt, float16 weights for `scorers: {clip: {model: chaffinch-tiny, pretrained: FOLDER/matcher.pt}}`. The
same machine gives the same bytes.
"""

import sys
from pathlib import Path

from chaffinch.jobs.console import Console
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.train import run_train
from chaffinch.pipeline.storage import files

MODEL = "chaffinch-tiny"

_SEED = 11
"""Of the scenes. Only a demo with this very seed would meet some of them again, as its trusted samples."""

_CONFIG = """\
input: {folder}/scenes
output: {folder}
train:
  model: {model}
  samples_seen: {seen}
  learning_rate: 0.001
  warmup: 0.05
  evaluate: {{input: {folder}/held_out}}
"""


def make_matcher(folder: str | Path, console: Console, scenes: int = 12_000, seen: int = 144_000) -> Path:
    """Renders, trains and writes the weights; goes on where it was stopped.

    Args:
        folder: for scenes, training and weights.
        console: where messages go.
        scenes: how many to train on.
        seen: how often one is seen, all scenes together.

    Returns:
        The file of weights.
    """
    from chaffinch.scoring.training.checkpoints import halve

    place = Path(folder)
    console.say(f"rendering {scenes} scenes into {place / 'scenes'}")
    write_clean(place / "scenes", samples=scenes, seed=_SEED)
    write_clean(place / "held_out", samples=500, seed=_SEED + 1)
    config = place / "matcher.yaml"
    config.write_text(_CONFIG.format(folder=place.as_posix(), model=MODEL, seen=seen), encoding="utf-8")
    run_train(str(config), [], console)
    weights = place / "matcher.pt"
    with (place / "training" / "final.pt").open("rb") as source, files.writing(str(weights)) as target:
        halve(source, target)
    console.say(f"weights in float16: {weights}")
    return weights


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make_matcher(sys.argv[1], Console())
