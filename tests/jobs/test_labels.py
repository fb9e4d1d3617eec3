"""Files of labels: what is read from them, and what is said of every way to break one."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.labels import read_labels

A, B, C = "00" * 15 + "0a", "00" * 15 + "0b", "ff" * 16


def plain(labels):
    """uid -> (keep, at_random), in the order they have."""
    uids = [f"{high:016x}{low:016x}" for high, low in labels.uids.tolist()]
    return dict(zip(uids, zip(labels.keep.tolist(), labels.at_random.tolist(), strict=True), strict=True))


@pytest.fixture
def written(tmp_path):
    """Writes a file of labels and returns its path."""

    def write(text, name="labels.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_labels_are_read_in_the_order_of_their_uids(written):
    labels = read_labels(written(f"uid,keep,drawn\n{C},true,random\n{A},false,picked\n{B},true,\n"))
    assert list(plain(labels).items()) == [(A, (False, False)), (B, (True, True)), (C, (True, True))]
    assert labels.uids.dtype == "uint64"
    assert labels.keep.dtype == labels.at_random.dtype == bool
    assert len(labels) == 3


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_however_a_spreadsheet_writes_it(written, ending):
    lines = ["Keep, UID ,note", f'TRUE,{A.upper()},"it said ""no"", twice', 'over"', "", f"0, {B},", f"Yes,{C},x", ",,"]
    labels = read_labels(written(b"\xef\xbb\xbf" + ending.join(lines).encode()))
    assert plain(labels) == {A: (True, True), B: (False, True), C: (True, True)}


def test_parquet_of_any_kind_of_answer(tmp_path):
    wanted = {A: (True, False), B: (False, True)}
    for keep in ([True, False], [1, 0], [1.0, 0.0], ["yes", "No"]):
        path = str(tmp_path / "labels.parquet")
        pq.write_table(pa.table({"keep": keep, "uid": [A, B], "drawn": ["picked", None], "who": [3, 4]}), path)
        assert plain(read_labels(path)) == wanted


def test_a_uid_twice_with_one_answer_is_one_label(written):
    labels = read_labels(written(f"uid,keep,drawn\n{A},yes,picked\n{B},no,picked\n{A},true,random\n{A},1,picked\n"))
    assert plain(labels) == {A: (True, True), B: (False, False)}


BROKEN = {
    "contradiction": (f"uid,keep\n{A},yes\n{B},no\n\n{A},no\n", ":5: ", A, "true at ", ":2", "leave one"),
    "no uid": (f"uid,keep\n{A},yes\nabc,no\n", ":3: uid: 'abc'", "32 hex digits"),
    "uid too long": (f"uid,keep\n{A}0,yes\n", ":2: uid: ", "32 hex digits"),
    "other digits": (f"uid,keep\n{'٣' * 32},yes\n", ":2: uid: ", "32 hex digits"),
    "empty uid": ("uid,keep\n,yes\n", ":2: uid: ''", "32 hex digits"),
    "no answer": (f"uid,keep\n{A},\n", ":2: keep: ''", "true or false"),
    "other answer": (f"uid,keep\n{A},maybe\n", ":2: keep: 'maybe'", "true or false"),
    "number": (f"uid,keep\n{A},0.5\n", ":2: keep: '0.5'", "true or false"),
    "drawn": (f"uid,keep,drawn\n{A},no,lots\n", ":2: drawn: 'lots'", "random", "picked"),
    "no header": (f"{A},true\n", ":1: ", "no column 'uid'", "uid,keep,drawn"),
    "no column keep": (f"uid,drawn\n{A},random\n", ":1: ", "no column 'keep'"),
    "column twice": (f"uid,keep,keep\n{A},yes,no\n", ":1: ", "more than one column 'keep'"),
    "semicolons": (f"uid;keep\n{A};yes\n", ":1: ", "no column 'uid'", "uid;keep"),
    "a value more": (f"uid,keep\n{A},yes,no\n", ":2: ", "3 of 2 values", "commas"),
    "a value less": (f"uid,keep\n{A}\n", ":2: ", "1 of 2 values"),
    "quote left open": (f'uid,keep\n{A},"yes\n', ":2: ", "comma-separated"),
    "empty": ("", "holds no label"),
    "blank": ("\n \n", "holds no label"),
    "only a header": ("uid,keep,drawn\n", "holds no label", "labels:"),
    "UTF-16": (f"uid,keep\n{A},yes\n".encode("utf-16"), "not UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_its_place_and_the_remedy(written, name):
    text, *wanted = BROKEN[name]
    path = written(text)
    with pytest.raises(ConfigError) as error:
        read_labels(path)
    assert str(error.value).startswith(path)
    for words in wanted:
        assert words in str(error.value)


def test_what_is_broken_in_parquet(tmp_path, written):
    path = str(tmp_path / "labels.parquet")
    tables = {
        "row 2: keep: None": {"uid": [A, B], "keep": [True, None]},
        "row 1: uid: None": {"uid": [None], "keep": [True]},
        "row 1: keep: 2": {"uid": [A], "keep": [2]},
        "row 3: uid " + A: {"uid": [A, B, A], "keep": [True, True, False]},
        "no column 'uid'": {"id": [A], "keep": [True]},
        "holds no label": {"uid": pa.array([], pa.string()), "keep": pa.array([], pa.bool_())},
    }
    for wanted, columns in tables.items():
        pq.write_table(pa.table(columns), path)
        with pytest.raises(ConfigError, match=wanted) as error:
            read_labels(path)
        assert path in str(error.value)
    with pytest.raises(ConfigError, match=r"spoilt\.parquet: cannot be read as a file of labels"):
        read_labels(written(b"PAR1 not", "spoilt.parquet"))


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read.*No such file"):
        read_labels(str(tmp_path / name))


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_what_is_written_is_what_is_read(tmp_path_factory, answers):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    wanted = {uid.hex(): answer for uid, answer in answers.items()}
    rows = [f"{uid},{str(keep).lower()},{'random' if lot else 'picked'}" for uid, (keep, lot) in wanted.items()]
    path.write_text("\n".join(["uid,keep,drawn", *rows]))
    assert list(plain(read_labels(str(path))).items()) == sorted(wanted.items())
