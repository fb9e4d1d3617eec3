import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.scoring.training.visit_log import VisitLog

COLUMNS = ("mimic_score", "weight", "loss")


def written(log, uids):
    file = io.BytesIO()
    log.write(file, uids)
    return file.getvalue()


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_log_is_what_was_noted_wherever_it_was_put_down(samples, visits, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(visits, 3)).astype(np.float32)
    order = np.concatenate([rng.permutation(samples) for _ in range(visits // samples + 1)])[:visits]
    lost = rng.random(visits) < 0.2
    uids = [f"{row:032x}" for row in range(samples)]
    whole, first, second = (VisitLog(COLUMNS, samples, visits) for _ in range(3))
    cut = int(rng.integers(visits + 1))
    for log, rows in ((whole, range(visits)), (first, range(cut))):
        known = [row for row in rows if not lost[row]]
        log.note(order[known], known, {name: values[known, at] for at, name in enumerate(COLUMNS)})
    second.read(io.BytesIO(written(first, uids)))
    known = [row for row in range(cut, visits) if not lost[row]]
    second.note(order[known], known, {name: values[known, at] for at, name in enumerate(COLUMNS)})
    assert written(second, uids) == written(whole, uids)

    table = pq.read_table(io.BytesIO(written(whole, uids)))
    assert table["uid"].to_pylist() == uids
    for row in range(samples):
        mine = [visit for visit in range(visits) if order[visit] == row and not lost[visit]]
        assert table["visits"][row].as_py() == len(mine)
        expected = np.mean(values[mine, 0], dtype=np.float64) if mine else np.nan
        np.testing.assert_allclose(table["mimic_mean"][row].as_py(), expected, rtol=1e-5, atol=1e-7)
        for at, name in enumerate(COLUMNS):
            noted = np.full(-(-visits // samples), np.nan)
            noted[[visit // samples for visit in mine]] = values[mine, at]
            np.testing.assert_array_equal(table[name][row].as_py(), noted)
    assert table.schema.field("loss").type == pa.list_(pa.float32())


def test_other_logs_and_damaged_ones_are_refused():
    log = VisitLog(COLUMNS, 5, 10)
    for samples, visits in ((4, 8), (5, 11)):
        other = VisitLog(COLUMNS, samples, visits)
        with pytest.raises(ValueError, match="log of other samples"):
            log.read(io.BytesIO(written(other, ["a"] * samples)))
    for damaged in (b"", b"PAR1", written(log, ["a"] * 5)[:-20]):
        with pytest.raises(ValueError, match="damaged"):
            log.read(io.BytesIO(damaged))
