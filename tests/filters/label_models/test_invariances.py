"""What may not matter to any label model: orders, silent sources, names of classes, copies, a trip through JSON."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.filters.label_models import All, Auto, Majority, Nothing
from chaffinch.jobs import kinds

SEEDS = st.integers(0, 10_000)
few = settings(max_examples=6, deadline=None)


def test_every_kind_is_swept(request):
    swept = {one.kind(**one.settings).kind for one in request.getfixturevalue("all_variants")}
    assert swept == set(kinds.label_models())


@given(seed=SEEDS, data=st.data())
@few
def test_no_order_of_rows_or_sources_changes_a_bit(variant, seed, data):
    pool, reference = variant.planted(seed)
    rows, sources = (data.draw(st.permutations(range(size))) for size in pool.shape)
    straight = variant.fit(pool, reference)
    turned = variant.fit(pool[rows][:, sources], reference[:, sources])
    np.testing.assert_array_equal(turned.predict_proba(pool[:, sources]), straight.predict_proba(pool))
    np.testing.assert_array_equal(turned.weight_, straight.weight_[sources])
    np.testing.assert_array_equal(turned.accuracy_, straight.accuracy_[sources])


@given(seed=SEEDS, place=st.integers(0, 5))
@few
def test_a_source_that_never_judges_changes_no_bit(variant, seed, place):
    pool, reference = variant.planted(seed)
    wider, beside = (np.insert(votes, place, variant.silence, axis=1) for votes in (pool, reference))
    model, without = variant.fit(wider, beside), variant.fit(pool, reference)
    np.testing.assert_array_equal(model.predict_proba(wider), without.predict_proba(pool))
    np.testing.assert_array_equal(np.delete(model.weight_, place), without.weight_)
    assert np.isnan(model.accuracy_[place])
    assert model.weight_[place] == 0 or variant.kind in (All, Majority, Nothing)  # where all weigh the same


@given(seed=SEEDS, source=st.integers(0, 4), places=st.lists(st.integers(0, 5), min_size=1, max_size=3))
@few
def test_copies_of_a_source_change_no_bit(variant, seed, source, places):
    pool, reference = variant.planted(seed)
    wider, beside = (np.insert(votes, places, votes[:, [source]], axis=1) for votes in (pool, reference))
    model, without = variant.fit(wider, beside), variant.fit(pool, reference)
    if variant.merges_copies:
        np.testing.assert_array_equal(model.predict_proba(wider), without.predict_proba(pool))
    else:
        assert (model.predict_proba(wider) != without.predict_proba(pool)).any()


@given(seed=SEEDS)
@few
def test_keep_and_drop_are_but_names(variant, seed):
    pool, reference = variant.planted(seed)
    for prior in (0.3, None):
        straight = variant.fit(pool, reference, prior)
        turned = variant.fit(-pool, -reference, None if prior is None else 1 - prior)
        if variant.kind is Auto and turned.chosen != straight.chosen:
            continue  # other samples are held out, and of candidates that are as good another may win
        if variant.treats_alike:
            np.testing.assert_allclose(turned.predict_proba(-pool), 1 - straight.predict_proba(pool), atol=1e-7)
        else:
            assert (abs(turned.predict_proba(-pool) + straight.predict_proba(pool) - 1) > 1e-3).any()


@given(seed=SEEDS)
@few
def test_a_trip_through_json_changes_no_bit(any_variant, seed):
    sources = 1 if any_variant.kind.__name__ == "Alone" else 5
    pool, reference = any_variant.planted(seed, m=sources)
    model = any_variant.fit(pool, reference)
    restored = any_variant.restored(model)
    unseen, _ = any_variant.planted(seed + 1, m=sources)
    np.testing.assert_array_equal(restored.predict_proba(unseen), model.predict_proba(unseen))
    assert restored.state() == model.state()
    assert restored == model
