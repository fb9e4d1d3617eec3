"""Trusted pairs that a training of light heads keeps, and which of them are drawn."""

import numpy as np
import pyarrow.parquet as pq

from chaffinch.scoring.light.negatives import draw_pairs, save_pairs
from chaffinch.scoring.text.references import find_reference


def test_of_many_pairs_some_are_kept_whatever_their_order(tmp_path):
    rng = np.random.default_rng(0)
    count = 5000
    features, names = rng.normal(size=(count, 2)).astype(np.float32), [f"{row:032x}" for row in range(count)]
    captions = [[f"number {row}"] for row in range(count)]
    order = rng.permutation(count)
    kept = []
    for rows in (np.arange(count), order):
        path = tmp_path / "pairs.parquet"
        with path.open("wb") as file:
            save_pairs(file, "features", features[rows], [captions[row] for row in rows], [names[row] for row in rows])
        kept.append({row["uid"]: (row["captions"], row["features"]) for row in pq.read_table(path).to_pylist()})
    assert kept[0] == kept[1]
    assert len(kept[0]) == 4096


def test_the_same_pairs_are_drawn_from_one_file_or_from_several(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 3)).astype(np.float32)
    names, captions = [f"{row:032x}" for row in range(20)], [[f"number {row}", "another"] for row in range(20)]
    parts = {"one": [range(20)], "several": [range(12, 20), range(12)]}
    drawn = []
    for folder, rows in parts.items():
        (tmp_path / folder).mkdir()
        for number, part in enumerate(rows):
            with (tmp_path / folder / f"{number}.parquet").open("wb") as file:
                chosen = [captions[row] for row in part], [names[row] for row in part]
                save_pairs(file, "features", features[list(part)], *chosen)
        reference = find_reference(str(tmp_path / folder), "yolox.features", "captions")
        drawn.append([draw_pairs(reference, 5, seed, 3) for seed in (0, 1)])
    for one, several in zip(*drawn, strict=True):
        assert [negative.uid for negative in one] == [negative.uid for negative in several]
        for negative in one:
            row = names.index(negative.uid)
            assert negative.caption == captions[row][0]
            assert np.allclose(negative.picture, features[row], rtol=1e-3)
    assert {negative.uid for negative in drawn[0][0]} != {negative.uid for negative in drawn[0][1]}
