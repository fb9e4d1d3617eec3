import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.text.caption_model import take, train
from chaffinch.scoring.text.words import normalise, split

NOUNS, VERBS, PLACES = (
    ("dog", "cat", "boy", "girl", "bird"),
    ("runs", "sits", "jumps", "sleeps"),
    ("beach", "grass", "sofa"),
)
CAPTIONS = [f"A {noun} {verb} on the {place}." for noun in NOUNS for verb in VERBS for place in PLACES]
MANY = 10**9

WORDS = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5).map(" ".join), min_size=4, max_size=30)


def bits(captions, corpus, order=3, folds=1):
    return train(take(corpus, MANY), order, folds).measure([split(normalise(caption)) for caption in captions])[0]


def test_usual_captions_cost_less_than_unusual_ones_and_those_less_than_foreign_ones():
    costs = bits(
        [
            "a dog runs on the beach.",
            "the beach on runs dog a.",
            "a dig rons on the bench.",
            "ein hund rennt am strand.",
            "一只 狗 在 海滩 上 奔跑",
        ],
        CAPTIONS,
    )
    assert (np.diff(costs) > 0).all()


def test_unknown_words_are_told():
    _, unknown = train(take(CAPTIONS, MANY), 3, 1).measure([["a", "dog"], ["a", "zebra", "flies"], []])
    assert unknown.tolist() == [0, 2, 0]


def test_an_unknown_word_costs_what_is_left_for_it_times_its_spelling():
    """By hand: a single caption of one word, so that all discounts are the fallback's."""
    model = train(take(["ab"], MANY), 2, 1)
    # Of words the model saw ab and the end, each once: half of either count, so one half in all, is left for others.
    # The spelling model saw a, b and the end: half of each is left, and 1 / 1,114,112 under it.
    # After BEGIN, one half is left for words but ab; after an unknown word the model of single words is asked.
    character = 1 / 0x110000
    letter = 0.5 * 0.5 * character  # c after the start of a word: half is left there, and half of the half below
    end = 1 / 3 * 0.5 + 0.5 * character  # after a letter never seen: c(end) = 1 of 3 single symbols
    expected = (0.5 * 0.5 * letter * end) * (0.5 / 2)
    assert 2 ** -model.measure([["c"]])[0][0] == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(WORDS, st.integers(0, 29), st.integers(2, 4))
def test_a_caption_is_measured_by_models_that_have_not_seen_it(corpus, index, folds):
    """What a caption costs is the same with it in the corpus as without."""
    caption = corpus[index % len(corpus)]
    without = [*CAPTIONS, *(other for other in corpus if other != caption)]
    expected = bits([caption], without, folds=folds)
    np.testing.assert_allclose(bits([caption], [*without, caption, caption], folds=folds), expected, rtol=1e-9)


def test_with_one_fold_what_is_in_the_corpus_looks_better():
    caption = "A penguin dances on the moon."
    assert bits([caption], [*CAPTIONS, caption])[0] < 0.8 * bits([caption], CAPTIONS)[0]


@settings(max_examples=25, deadline=None)
@given(st.permutations(CAPTIONS[:20]), st.integers(1, 3), st.sampled_from([5, 30, MANY]))
def test_the_order_of_the_corpus_does_not_matter(captions, folds, most):
    folds = folds if most == MANY else 1  # a single caption has no folds
    found = train(take(captions, most), 3, folds).measure([split(normalise(one)) for one in captions[:3]])
    again = train(take(sorted(captions), most), 3, folds).measure([split(normalise(one)) for one in captions[:3]])
    assert found[0].tolist() == again[0].tolist()


@settings(max_examples=60, deadline=None)
@given(WORDS, st.integers(1, 60))
def test_of_too_many_words_the_captions_with_the_least_hashes_are_taken(captions, most):
    everything, taken = take(captions, MANY), take(captions, most)
    assert (np.diff(everything.hashes.astype(object)) >= 0).all()
    count = len(taken.lengths)
    assert taken.hashes.tolist() == everything.hashes[:count].tolist()
    assert count == 1 or taken.lengths.sum() <= most
    assert count == len(everything.lengths) or everything.lengths[: count + 1].sum() > most
    assert taken.names == sorted({everything.names[symbol] for symbol in everything.symbols[: len(taken.symbols)]})


def test_what_was_taken_can_be_read_back():
    captions = ["The cat.", "a DOG's life", "  ", "two  two"]
    taken = take(captions, MANY)
    words = [taken.names[symbol] for symbol in taken.symbols]
    ends = np.cumsum(taken.lengths)
    found = [words[end - length : end] for end, length in zip(ends, taken.lengths, strict=True)]
    assert sorted(found) == [["a", "dog's", "life"], ["the", "cat", "."], ["two", "two"]]


def test_a_corpus_too_small_for_its_folds_is_refused():
    with pytest.raises(ValueError, match=r"corpus has 1 captions, too few for 2 folds: .*folds: 1"):
        train(take(["One caption"], MANY), 3, 2)


def test_long_captions_and_long_words_are_measured():
    model = train(take(CAPTIONS, MANY), 3, 2)
    generator = random.Random(1)
    words = [generator.choice(["dog", "a", "zzz", "on"]) for _ in range(10_000)]
    costs, unknown = model.measure([words, ["x" * 100_000], ["dog"]])
    assert np.isfinite(costs).all()
    assert unknown.tolist() == [words.count("zzz"), 1, 0]
    assert costs[1] > 100_000


def test_half_characters_are_characters():
    assert math.isfinite(bits(["a \ud83d dog"], [*CAPTIONS, "a \ud83d cat"])[0])
