"""Label models beside those of snorkel, crowd-kit and flyingsquid: on real votes, on planted models, and at size.

    python benchmarks/label_models.py quality --libraries PYTHON
    python benchmarks/label_models.py planted --libraries PYTHON
    python benchmarks/label_models.py scale --libraries PYTHON --work FOLDER

PYTHON is the interpreter of a virtual environment with snorkel==0.10.0, crowd-kit, flyingsquid, pgmpy==0.1.17,
"networkx<3" and "setuptools<80"; without it only ours are run. Gold labels judge, and choose nothing; models that are
told the true prior are so on both sides. Algorithms are held against the same algorithm: of the libraries' variants
(Snorkel's 100 epochs and its tutorials' 500, FlyingSquid's mean and median) the best counts, set by set.
"""

import argparse
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import measuring
from label_contenders import library_versions
from label_quality import quality


def table(figures: Mapping[str, Any]) -> str:
    """Accuracies of every model on every set, and the means."""
    sets = figures["sets"]
    lines = [f"{'accuracy':46}" + "".join(f"{name[:9]:>10}" for name in sets) + "      mean   mean F1"]
    for side in ("ours", "theirs"):
        for model in next(iter(sets.values()))[side]:
            cells = (one[side][model].get("accuracy") for one in sets.values())
            mean = figures["means"][side].get(model)
            end = "" if mean is None else f"{mean['accuracy']:10.4f}{mean['f1']:10.4f}"
            end += "" if mean is None or mean["sets"] == len(sets) else f"  ({mean['sets']} sets)"
            lines.append(f"{model:46}" + "".join(f"{'-':>10}" if c is None else f"{c:10.4f}" for c in cells) + end)
    return "\n".join(lines)


def told_quality(figures: Mapping[str, Any]) -> str:
    """The verdict as prose."""
    means, sides = figures["means"], []
    for side in ("ours", "theirs"):
        complete = {model: one for model, one in means[side].items() if one["sets"] == len(figures["sets"])}
        unaided = {model: one["accuracy"] for model, one in complete.items() if "true prior" not in model}
        if unaided:
            first = max(unaided, key=lambda model: unaided[model])
            sides.append(f"{first} of {side} {unaided[first]:.4f}")
    short = figures["short"]
    compared = "" if means["theirs"] else "; the other libraries were not run"
    worse = "; ".join(
        f"{one['set']}: {one['ours']} refuses, {one['theirs']} does not"
        if "refused" in one
        else f"{one['set']}: {one['measure']} {one['is']:.4f} of {one['ours']}, {one['has']:.4f} of {one['theirs']}"
        for one in short
    )
    return (
        f"Over {len(figures['sets'])} sets of real votes, best mean accuracy without the true prior: "
        f"{', '.join(sides)}{compared}. More than half a point (or one sample) worse than the same algorithm of a "
        f"library: {worse or 'nowhere'}."
    )


def keep(name: str, figures: Mapping[str, Any], prose: str, before: Mapping[str, Any], python: str | None) -> None:
    """Writes results/label_models-<name>.json and prints a line of prose."""
    versions = {"python": platform.python_version(), "chaffinch": version("chaffinch"), "numpy": version("numpy")}
    if python:
        versions["libraries"] = library_versions(python)
    content = {"command": measuring.command_line(), "prose": prose, "figures": figures, "machine": before}
    text = json.dumps(content | {"versions": versions}, indent=1)
    measuring.RESULTS.mkdir(exist_ok=True)
    (measuring.RESULTS / f"label_models-{name}.json").write_text(text + "\n", encoding="utf-8")
    print(prose)


def main() -> None:
    """Runs one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality"])
    parser.add_argument("--libraries", metavar="PYTHON", help="an interpreter that has the other libraries")
    options = parser.parse_args()
    before = measuring.machine()
    figures = quality(options.libraries)
    print(table(figures))
    keep("quality", figures, told_quality(figures), before, options.libraries)


if __name__ == "__main__":
    main()
