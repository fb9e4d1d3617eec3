import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.filters.language import CODES, Language

TYPE = pa.list_(pa.struct([("language", pa.string()), ("probability", pa.float32())]))
SHARES = st.floats(0, 0.5, width=32)
LISTS = st.lists(
    st.none() | st.lists(st.tuples(st.sampled_from(["en", "de", "fr", "zh"]), SHARES), max_size=5), max_size=12
)


def arrow(rows, kind=TYPE):
    entries = [
        None if row is None else [{"language": code, "probability": share} for code, share in row] for row in rows
    ]
    return pa.array(entries, type=kind)


def score(rows, *languages):
    return Language(languages=languages).score({"captions.languages": rows})


def slow(rows, languages):
    """Row by row, entry by entry."""
    scores = []
    for row in rows.to_pylist():
        if row is None:
            scores.append(np.nan)
        else:
            total = sum(entry["probability"] for entry in row if entry["language"] in languages)
            scores.append(min(max(total, 0.0), 1.0))
    return np.array(scores, dtype=np.float32)


@given(rows=LISTS, languages=st.sets(st.sampled_from(["en", "de", "zh"]), min_size=1))
def test_agrees_with_a_loop(rows, languages):
    rows = arrow(rows)
    np.testing.assert_array_equal(score(rows, *sorted(languages)), slow(rows, languages))


@given(rows=LISTS, start=st.integers(0, 12), length=st.integers(0, 12))
@settings(max_examples=50)
def test_a_slice_scores_its_own_rows(rows, start, length):
    rows = arrow(rows)
    np.testing.assert_array_equal(
        score(rows.slice(start, length), "en", "de"), score(rows, "en", "de")[start : start + length]
    )


def test_null_is_nan_and_an_empty_list_is_0():
    np.testing.assert_array_equal(score(arrow([None, [], [("en", 0.75), ("de", 0.25)]]), "en"), [np.nan, 0, 0.75])


def test_entries_under_a_null_row_are_not_read():
    entries = arrow([[("en", 0.9), ("en", 0.4)]]).values
    rows = pa.ListArray.from_arrays(pa.array([0, 1, 2]), entries, mask=pa.array([True, False]))
    np.testing.assert_array_equal(score(rows, "en"), np.float32([np.nan, 0.4]))


def test_rounding_never_leaves_the_range():
    assert score(arrow([[("en", 0.7), ("de", 0.4)]]), "en", "de")[0] == 1.0


def test_wide_lists_and_columns_of_nulls_are_read_too():
    wide = pa.large_list(TYPE.value_type)
    np.testing.assert_array_equal(score(arrow([[("en", 0.5)], None], wide), "en"), [0.5, np.nan])
    assert np.isnan(score(pa.nulls(2), "en")).all()


def test_no_rows():
    assert score(arrow([]), "en").shape == (0,)


def test_keeps_from_one_half_unless_told_otherwise():
    assert Language(languages=("en",)).keep == (0.5, None)
    assert Language(languages=("en",), keep=(0.7, None)).keep == (0.7, None)


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (("eng",), "did you mean 'en'"),
        (("en", "DE"), "'DE' is no code.*did you mean 'de'"),
        (("english",), "English is 'en'"),
        ((), "give a list"),
        ("en", "give a list"),
    ],
)
def test_languages_that_no_caption_can_have_are_refused(languages, message):
    with pytest.raises(ValueError, match=message):
        Language(languages=languages).check()


def test_all_of_fasttexts_languages_are_accepted():
    assert len(CODES) == 176
    Language(languages=tuple(sorted(CODES))).check()


def test_ten_thousand_captions_take_milliseconds():
    rng = np.random.default_rng(0)
    offsets = np.arange(0, 50_001, 5, dtype=np.int32)
    codes = pa.array(rng.choice(["en", "de", "fr", "ru"], 50_000))
    shares = pa.array(rng.random(50_000, dtype=np.float32) / 5)
    rows = pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays([codes, shares], list(TYPE.value_type.names))
    )
    score(rows, "en")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        score(rows, "en", "de")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05  # 1 to 2 ms; a loop over rows takes 100
