"""Turns votes in a file into P(keep), and says how far to trust each source; no truth is needed.

    python examples/label_votes.py votes.csv --skip uid --output probabilities.csv

The file (csv or parquet) has a row per sample and a column per source: 1 keep, -1 drop, empty or 0 where the source has
no answer. Without a file it judges 1,586 comments on videos by ten rules that look for spam (WRENCH's youtube, which
lies in ../shared/data where that is there), or planted votes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from chaffinch.filters.diagnosis import diagnose_model
from chaffinch.filters.label_models import Auto, DawidSkene, FlyingSquid, Majority, Metal, WeightedMajority

COMMENTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "label-matrices" / "wrench" / "youtube"
MODELS = {
    "auto": Auto,
    "dawid_skene": DawidSkene,
    "flying_squid": FlyingSquid,
    "majority": Majority,
    "metal": Metal,
    "weighted_majority": WeightedMajority,
}
UNSURE = 0.1, 0.9


def read_file(path: str) -> pa.Table:
    """A table with a column per source, and perhaps some that say which sample it is."""
    return pyarrow.parquet.read_table(path) if path.endswith(".parquet") else pyarrow.csv.read_csv(path)


def read_comments(folder: Path) -> pa.Table:
    """Ten rules' votes, keep for a comment that is no spam: -1 is their abstain, 0 ham, 1 spam."""
    comments = json.loads((folder / "train.json").read_text()).values()
    votes = np.array([comment["weak_labels"] for comment in comments])
    return pa.table({f"rule {number}": np.array([1, -1, 0])[column] for number, column in enumerate(votes.T)})


def plant_votes(samples: int = 2000, seed: int = 0) -> pa.Table:
    """Votes of five sources, right in 90 to 65% of them, on four samples of five; 40% of the samples are good."""
    rng = np.random.default_rng(seed)
    good = rng.random(samples) < 0.4
    right = rng.random((samples, 5)) < [0.9, 0.85, 0.75, 0.7, 0.65]
    votes = np.where(right == good[:, None], 1, -1) * (rng.random((samples, 5)) < 0.8)
    return pa.table({f"source {name}": column for name, column in zip("abcde", votes.T, strict=True)})


def main(arguments: list[str] | None = None) -> None:
    """Reads votes, fits, prints the diagnosis, and writes what every sample's P(keep) is.

    Args:
        arguments: of the command line; None: those that it was called with.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("votes", nargs="?", help="csv or parquet; leave it out to see an example")
    parser.add_argument("--skip", nargs="*", default=[], metavar="COLUMN", help="columns that are no sources")
    parser.add_argument("--model", choices=MODELS, default="auto")
    parser.add_argument("--class-prior", type=float, help="P(keep) before any vote, if you know it")
    parser.add_argument("--output", help="where to write the columns of --skip and `probability` as csv")
    chosen = parser.parse_args(arguments)
    if chosen.votes is not None:
        table = read_file(chosen.votes)
    else:
        table = read_comments(COMMENTS) if COMMENTS.is_dir() else plant_votes()

    votes = table.drop_columns(chosen.skip)
    model = MODELS[chosen.model](class_prior=chosen.class_prior).fit(votes)
    probability = model.predict_proba(votes)

    print(diagnose_model(model, votes))
    low, high = UNSURE
    unsure = ((probability > low) & (probability < high)).sum()
    kept = (probability >= 0.5).sum()
    print(f"\nto keep: {kept:,} of {len(probability):,}; P(keep) between {low} and {high}: {unsure:,}")
    if chosen.output is not None:
        named = {name: table[name] for name in chosen.skip}
        pyarrow.csv.write_csv(pa.table(named | {"probability": probability}), chosen.output)


if __name__ == "__main__":
    main()
