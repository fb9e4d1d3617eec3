"""Duplicates and clusters through the command line: planted in rendered scenes, and real ones."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.jobs.main import main

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "pool-flickr8k"
WEIGHTS = ROOT / "jobs" / "demo" / "matcher.pt"

PROGRAM = [sys.executable, "-m", "chaffinch.jobs.main"]

HASHES = """\
input: {pool}
output: {output}
store: {output}-store
scorers:
  neighbours: {{hash: pictures.hash}}
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  duplicates: {{column: neighbours.distance, keep: [8, null], aspect: duplicates}}
keep: {{probability: 0.5}}
run: {{max_rejected: 0.2}}
"""
EMBEDDINGS = f"""\
input: {{pool}}
output: {{output}}
store: {{output}}-store
reference: {{trusted}}
scorers:
  tiny: {{{{model: chaffinch-tiny, pretrained: {WEIGHTS}, embeddings: true, kind: clip}}}}
  near: {{{{kind: neighbours, embedding: tiny.image_embedding, prefer: tiny.similarity, clusters: 4, reference: true}}}}
filters:
  duplicates: {{{{column: near.similarity, keep: [null, 0.95], aspect: duplicates}}}}
  wanted: {{{{column: near.reference_pictures, keep: [1, null], aspect: wanted}}}}
keep: {{{{probability: 0.5}}}}
run: {{{{max_rejected: 0.2}}}}
"""


def rows(store: Path, scorer: str, truth: Path) -> list[dict]:
    """What was measured of every sample, beside what is true of it."""
    (folder,) = [path for path in (store / "scores").iterdir() if path.name.startswith(f"{scorer}-")]
    known = {(row["shard"], row["key"]): row for row in pq.read_table(truth).to_pylist()}
    found = []
    for path in sorted(folder.glob("*.parquet")):
        samples = pq.read_table(store / "samples" / path.name, columns=["key", "uid"]).to_pylist()
        for sample, measured in zip(samples, pq.read_table(path).to_pylist(), strict=True):
            found.append(known.get((path.stem, sample["key"]), {}) | sample | measured)
    return found


def by_group(found: list[dict], column: str, group: str) -> tuple[dict[str, list], list[dict]]:
    """Samples that were measured: those that share a group, and those that are alone."""
    measured = [row for row in found if row[column] is not None]
    sizes = Counter(row[group] for row in measured if row.get(group))
    groups: dict[str, list] = {}
    for row in measured:
        if sizes[row.get(group)] > 1:
            groups.setdefault(row[group], []).append(row)
    return groups, [row for row in measured if sizes[row.get(group)] <= 1]


def test_planted_duplicates_are_found_by_hash(config, rendered, tmp_path):
    assert main(["run", str(config(HASHES)), "--quiet"]) == 0
    found = rows(tmp_path / "out-store", "neighbours", rendered / "pool" / "truth.parquet")
    groups, alone = by_group(found, "distance", "group")
    near = sum(row["distance"] <= 7 for members in groups.values() for row in members)
    assert near >= 0.6 * sum(len(members) - 1 for members in groups.values()) >= 3
    assert all(any(row["distance"] > 7 for row in members) for members in groups.values())
    assert sum(row["distance"] <= 7 for row in alone if row["kind"] == "clean") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    decided = {
        row["uid"]: row["keep"]
        for shard in summary["shards"]
        for row in pq.read_table(tmp_path / "out" / "decisions" / f"{shard}.parquet").to_pylist()
        if row["reason"] is None or row["reason"].startswith("dropped")
    }
    assert all(decided[row["uid"]] == (row["distance"] > 7) for members in groups.values() for row in members)


def test_clusters_and_duplicates_by_embedding(config, rendered, tmp_path):
    assert main(["run", str(config(EMBEDDINGS)), "--quiet"]) == 0
    found = rows(tmp_path / "out-store", "near", rendered / "pool" / "truth.parquet")
    measured = [row for row in found if row["similarity"] is not None]
    assert {row["cluster"] for row in measured} == {0, 1, 2, 3}
    assert all(row["reject"] is None for row in measured)
    assert sum(row["similarity"] == -1 for row in measured) == 4  # the most preferred of each cluster
    groups, _ = by_group(found, "similarity", "group")
    copies = [sorted(row["similarity"] for row in members)[1:] for members in groups.values()]
    assert np.median(np.concatenate(copies)) > 0.95
    (reference,) = [path for path in (tmp_path / "out-store" / "reference" / "scores").glob("near-*/*.parquet")]
    assert pq.read_table(reference)["similarity"].null_count == 0
    counts = {row["cluster"]: row["reference_pictures"] for row in measured}
    assert sum(counts.values()) == 60


def test_a_veto_decides_who_is_preferred(config, tmp_path):
    """With a veto on what the scorer prefers, other samples of a group take the place of those that are dropped."""
    path = config(HASHES.replace("hash: pictures.hash", "hash: pictures.hash, prefer: pictures.brightness"))
    assert main(["score", str(path), "--quiet"]) == 0
    before = {row["uid"]: row["distance"] for row in rows(tmp_path / "out-store", "neighbours", _truth(path))}
    veto = "filters.dark={column: pictures.brightness, keep: bottom 50%, require: true}"
    again = tmp_path / "again.yaml"
    again.write_text(path.read_text().replace("-store", "-store2"))
    assert main(["score", str(again), veto, "--quiet"]) == 0
    after = {row["uid"]: row["distance"] for row in rows(tmp_path / "out-store2", "neighbours", _truth(path))}
    dropped = {uid for uid in before if before[uid] is not None and after[uid] is None}
    assert 0.3 * len(before) < len(dropped) < 0.6 * len(before)
    assert any(before[uid] <= 7 < after[uid] for uid in before if uid not in dropped and before[uid] is not None)


def _truth(path: Path) -> Path:
    pool = next(line for line in path.read_text().splitlines() if line.startswith("input:")).partition(": ")[2]
    return Path(pool) / "truth.parquet"


def test_a_larger_pool_is_measured_anew(tmp_path):
    pool = tmp_path / "pool"
    write_pool(pool, samples=60, shard_size=20, seed=3)
    last = sorted(pool.glob("*.tar"))[-1]
    away = last.rename(last.with_suffix(".away"))
    path = tmp_path / "config.yaml"
    path.write_text(HASHES.format(pool=pool, output=tmp_path / "out"))
    assert main(["score", str(path), "--quiet"]) == 0
    folders = set((tmp_path / "out-store" / "scores").glob("neighbours-*"))
    away.rename(last)
    assert main(["run", str(path), "--quiet"]) == 0
    (new,) = set((tmp_path / "out-store" / "scores").glob("neighbours-*")) - folders
    assert len(list(new.glob("*.parquet"))) == 3
    stamp = new.stat().st_mtime_ns
    assert main(["run", str(path), "filters.duplicates.keep=[4, null]", "--quiet"]) == 0
    assert new.stat().st_mtime_ns == stamp


def test_killed_and_run_again_is_as_if_nothing_had_happened(tmp_path, digests):
    pool = tmp_path / "pool"
    write_pool(pool, samples=120, shard_size=10, seed=5)
    path = tmp_path / "config.yaml"
    path.write_text(HASHES.format(pool=pool, output=tmp_path / "out"))
    store = tmp_path / "out-store"
    command = ["run", str(path), "--quiet"]
    assert main([*command, "run.workers=2"]) == 0
    wanted = digests(store)
    (folder,) = (store / "scores").glob("neighbours-*")
    for table in folder.glob("*.parquet"):
        table.unlink()
    killed = 0
    for moment, count in (
        ("exchange/*/sent/*.rows", 5),
        ("exchange/*/found/*", 1),
        ("scores/neighbours-*/*.parquet", 5),
    ):
        process = subprocess.Popen([*PROGRAM, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(store.glob(moment))) < count:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert digests(store) != wanted or process.returncode == 0, f"{moment}: killed too late to tell anything"
    assert main(command) == 0
    assert digests(store) == wanted
    assert killed >= 2  # a machine in a hurry may once be faster than the signal


@pytest.mark.parametrize(
    ("scorer", "complaint"),
    [
        ("neighbours: {{}}", "give either embedding"),
        ("neighbours: {{hash: pictures.hach}}", "scorers.neighbours.hash: no scorer writes 'pictures.hach'"),
        ("neighbours: {{embedding: pictures.hash}}", "embedding: pictures.hash holds uint64"),
        ("neighbours: {{hash: pictures.hash, evaluation: nowhere.npy}}", "nothing can be read at 'nowhere.npy'"),
        (
            f"tiny: {{{{kind: clip, model: chaffinch-tiny, pretrained: {WEIGHTS}, embeddings: true}}}}\n"
            "  neighbours: {{embedding: tiny.image_embedding, reference: true}}",
            "scorers.neighbours.reference: needs a reference:",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(config, capsys, tmp_path, scorer, complaint):
    path = config(HASHES.replace("neighbours: {{hash: pictures.hash}}", scorer))
    assert main(["run", str(path), "--quiet"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out-store").exists()


def test_a_set_that_does_not_fit_fails_the_job(config, capsys, tmp_path):
    np.save(tmp_path / "set.npy", np.zeros((3, 2), np.float32))
    path = config(HASHES.replace("pictures.hash}}", f"pictures.hash, evaluation: {tmp_path / 'set.npy'}}}}}"))
    assert main(["run", str(path), "--quiet"]) == 1
    assert "scorers.neighbours: " in (message := capsys.readouterr().err)
    assert "holds no hashes of 64 bits" in message


def test_the_tables_of_another_store_are_an_evaluation_set(config, tmp_path):
    path = config(HASHES)
    assert main(["score", str(path), "--quiet"]) == 0
    (folder,) = (tmp_path / "out-store" / "scores").glob("pictures-*")
    path.write_text(path.read_text().replace("pictures.hash}", f"pictures.hash, evaluation: {folder}}}"))
    assert main(["score", str(path), "--quiet"]) == 0
    found = [
        pq.read_table(table)["evaluation_distance"].drop_null().to_pylist()
        for one in (tmp_path / "out-store" / "scores").glob("neighbours-*")
        for table in one.glob("*.parquet")
        if "evaluation_distance" in pq.read_schema(table).names
    ]
    assert {value for values in found for value in values} == {0}  # everybody is in it


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real pool is not in ../shared/data beside the repository")
def test_real_duplicates_are_found_by_hash(tmp_path):
    """Recompressed, brightened and cropped copies of photos; what is asked for lies well below what was seen."""
    path = tmp_path / "config.yaml"
    path.write_text(HASHES.format(pool=REAL, output=tmp_path / "out"))
    assert main(["score", str(path), "--quiet"]) == 0
    found = rows(tmp_path / "out-store", "neighbours", REAL / "truth.parquet")
    groups, alone = by_group(found, "distance", "image")
    copies = sum(len(members) - 1 for members in groups.values())
    near = sum(row["distance"] <= 7 for members in groups.values() for row in members)
    clean = [row for row in alone if row["kind"] == "clean"]
    wrong = sum(row["distance"] <= 7 for row in clean)
    print(f"by hash: {near} of {copies} copies are near another, and {wrong} of {len(clean)} clean photos")
    assert all(any(row["distance"] > 7 for row in members) for members in groups.values())
    assert near >= 0.8 * copies
    assert wrong <= 0.01 * len(clean)
