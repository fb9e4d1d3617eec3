"""Label models beside those of snorkel, crowd-kit and flyingsquid: on real votes, on planted models, and at size.

    python benchmarks/label_models.py quality --libraries PYTHON --work FOLDER
    python benchmarks/label_models.py planted --libraries PYTHON --work FOLDER
    python benchmarks/label_models.py scale --libraries PYTHON --work FOLDER

PYTHON is the interpreter of a virtual environment with snorkel==0.10.0, crowd-kit, flyingsquid, pgmpy==0.1.17,
"scikit-learn<1.6", "networkx<3" and "setuptools<80"; without it only ours are run. FOLDER keeps what the libraries
answered: a run that was stopped goes on, and the next one runs only ours again. Gold labels judge, and choose nothing;
models that are told the true prior are so on both sides. Algorithms are held against the same algorithm: of the
libraries' variants (Snorkel's 100 epochs and its tutorials' 500, FlyingSquid's mean and median) the best counts, set by
set.
"""

import argparse
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import measuring
from label_contenders import library_versions
from label_planted import MEASURES, planted
from label_quality import quality
from label_scale import scale
from label_scale import told as told_scale


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
    auto = figures["automatic"]
    library = "the other libraries were not run"
    if "library" in auto:
        library = f"the best library model there, {auto['library']}, {auto['library_mean']:.4f}"
    worse = "; ".join(
        f"{one['set']}: {one['ours']} {'no answer' if one['is'] is None else format(one['is'], '.4f')}, "
        f"{one['theirs']} {one['has']:.4f}"
        for one in figures["short"]
        if one["measure"] == "accuracy"
    )
    return (
        f"Mean accuracy of the automatic choice over the {auto['sets']} of {len(figures['sets'])} sets of real votes "
        f"that it answers: {auto['mean']:.4f}; {library}. More than half a point of accuracy (or one sample) worse "
        f"than the same algorithm of a library: {worse or 'nowhere'}."
    )


def planted_table(figures: Mapping[str, Any]) -> str:
    """Mean errors of every model over the cases."""
    lines = [f"{'mean over cases':46}" + "".join(f"{measure:>18}" for measure in MEASURES) + "     cases"]
    for side in ("ours", "theirs"):
        for model, one in figures["means"][side].items():
            cells = "".join(f"{one.get(measure, float('nan')):18.4f}" for measure in MEASURES)
            lines.append(f"{model:46}{cells}{one['cases']:10}")
    return "\n".join(lines)


def told_planted(figures: Mapping[str, Any]) -> str:
    """The verdict as prose."""
    sides = []
    for side in ("ours", "theirs"):
        for told in (False, True):
            known = {
                model: one["posterior_error"]
                for model, one in figures["means"][side].items()
                if ("true prior" in model) == told and one["cases"] == len(figures["cases"])
            }
            if known:
                first = min(known, key=lambda model: known[model])
                sides.append(f"{first} of {side} {known[first]:.4f}")
    worse = [one for one in figures["worse"] if one["measure"] == "posterior_error"]
    cases = "; ".join(f"{one['case']}: {one['ours']} {one['is']}, {one['theirs']} {one['has']}" for one in worse)
    return (
        f"Mean distance from the exact posterior over {len(figures['cases'])} planted models, the best untold and told "
        f"the true prior: {', '.join(sides)}. Further from it than the same algorithm of a library: "
        f"{cases or 'nowhere'}."
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
    parser.add_argument("what", choices=["quality", "planted", "scale"])
    parser.add_argument("--libraries", metavar="PYTHON", help="an interpreter that has the other libraries")
    parser.add_argument("--work", metavar="FOLDER", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="draws of each planted model")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 12_800_000, 128_000_000])
    parser.add_argument("--models", nargs="+", default=["DawidSkene"], help="of ours, to run at size")
    parser.add_argument("--largest", type=int, default=12_800_000, help="rows that Snorkel is still given")
    options = parser.parse_args()
    before = measuring.machine()
    if options.what == "quality":
        figures = quality(options.libraries, options.work)
        print(table(figures))
        prose = told_quality(figures)
    elif options.what == "scale":
        figures = scale(options.libraries, options.work, options.rows, options.models, options.largest)
        prose = told_scale(figures)
    else:
        figures = planted(options.libraries, options.work, range(options.seeds))
        print(planted_table(figures))
        prose = told_planted(figures)
    keep(options.what, figures, prose, before, options.libraries)


if __name__ == "__main__":
    main()
