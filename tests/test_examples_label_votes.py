"""The example that judges votes in a file, at small size."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "label_votes.py"
COMMENTS = EXAMPLE.parents[2] / "shared" / "data" / "label-matrices" / "wrench" / "youtube"


@pytest.fixture(scope="module")
def example():
    description = importlib.util.spec_from_file_location("label_votes", EXAMPLE)
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


def test_without_a_file_votes_are_planted_and_judged(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(example, "COMMENTS", tmp_path / "nothing")
    example.main(["--model", "dawid_skene"])
    printed = capsys.readouterr().out
    assert "dawid_skene: 2,000 samples, 5 sources" in printed
    assert "worth 5.0 independent sources" in printed
    assert "to keep: " in printed


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_is_judged_row_by_row(example, tmp_path, capsys, ending):
    table = example.plant_votes(300)
    table = table.append_column("uid", pa.array([f"{row:03d}x" for row in range(300)]))
    path = tmp_path / f"votes.{ending}"
    (pyarrow.csv.write_csv if ending == "csv" else pyarrow.parquet.write_table)(table, path)
    output = tmp_path / "probabilities.csv"
    example.main([str(path), "--skip", "uid", "--class-prior", "0.4", "--output", str(output)])
    assert "class prior 0.400 (given)" in capsys.readouterr().out
    found = pyarrow.csv.read_csv(output)
    assert found["uid"].to_pylist() == table["uid"].to_pylist()
    probability = found["probability"].to_numpy()
    total = np.sum([table[name].to_numpy() for name in table.column_names[:-1]], axis=0)
    assert probability[total >= 4].min() > 0.5 > probability[total <= -4].max()


@pytest.mark.real
@pytest.mark.skipif(not COMMENTS.is_dir(), reason="needs ../shared/data/label-matrices/wrench/youtube")
def test_real_comments_are_judged_without_a_file(example, capsys):
    example.main(["--model", "weighted_majority"])
    printed = capsys.readouterr().out
    assert "1,586 samples, 10 sources" in printed
    assert "rule 9" in printed
