import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.text.ngrams import BEGIN, END, FIRST, UNSEEN, Sequences, fit

TEXTS = st.lists(st.text("abc", max_size=6), min_size=1, max_size=12)
ENGLISH = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a cat and a dog",
    "the cat saw the dog run",
    "dogs run",
    "a dog",
]
UNIFORM = 1 / 30


class Plain:
    """Modified Kneser-Ney with dictionaries and one recursion, straight from the formulas."""

    def __init__(self, texts, order):
        self.order = order
        raw = defaultdict(Counter)
        for text in texts:
            symbols = ["<", *text, ">"]
            for length in range(1, order + 1):
                for end in range(length, len(symbols) + 1):
                    raw[length][tuple(symbols[end - length : end])] += 1
        self.counts = {order: raw[order]}
        for length in range(1, order):
            before = Counter(gram[1:] for gram in raw[length + 1])
            self.counts[length] = {gram: raw[length][gram] if gram[0] == "<" else before[gram] for gram in raw[length]}
        self.counts[1] = {gram: count for gram, count in self.counts[1].items() if gram != ("<",)}
        self.discounts = {length: self.discount(counts) for length, counts in self.counts.items()}

    @staticmethod
    def discount(counts):
        n = Counter(counts.values())
        fallback = (0, 0.5, 1, 1.5)
        if not (n[1] and n[2] and n[3] and n[4]):
            return fallback
        y = n[1] / (n[1] + 2 * n[2])
        found = (0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
        return found if all(0 < found[j] < j for j in (1, 2, 3)) else fallback

    def probability(self, before, symbol, base=UNIFORM):
        return self.step(tuple(before)[max(0, len(before) - self.order + 1) :], symbol, base)

    def step(self, context, symbol, base):
        length = len(context) + 1
        shorter = self.step(context[1:], symbol, base) if context else base
        following = {gram: count for gram, count in self.counts[length].items() if gram[:-1] == context}
        total = sum(following.values())
        if not total:
            return shorter
        taken = sum(self.discounts[length][min(count, 3)] for count in following.values())
        count = following.get((*context, symbol), 0)
        return (count - self.discounts[length][min(count, 3)]) / total + taken / total * shorter


def codes(text):
    return [ord(letter) + FIRST for letter in text]


def sequences(texts, roots=None):
    flat = np.array([code for text in texts for code in codes(text)], np.int64)
    return Sequences.of(flat, [len(text) for text in texts], np.zeros(len(texts), int) if roots is None else roots)


def learn(texts, order, roots=None, count=1):
    model = fit(sequences(texts, roots), order, count)
    return model.over(np.full(len(model.unigrams()[0]), math.log2(UNIFORM)))


def probabilities(model, text, root=0):
    """P of each letter and of the end, P_0 included."""
    log2, known = model.log2(sequences([text], [root]))
    return np.where(known, 1, UNIFORM)[1:] * 2 ** log2[1:]


def plainly(model, text):
    symbols = ["<", *text, ">"]
    return [model.probability(symbols[:end], symbols[end]) for end in range(1, len(symbols))]


@settings(max_examples=80, deadline=None)
@given(TEXTS, TEXTS, st.integers(1, 4))
def test_agrees_with_the_formulas(texts, others, order):
    model, plain = learn(texts, order), Plain(texts, order)
    for text in [*others, *texts, "abz", "zz", ""]:
        np.testing.assert_allclose(probabilities(model, text), plainly(plain, text), rtol=1e-10)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_agrees_with_the_formulas_where_discounts_are_estimated(order):
    texts = [" ".join(ENGLISH[:k]) for k in range(1, 7)] + ENGLISH
    plain = Plain(texts, order)
    assert any(found != (0, 0.5, 1, 1.5) for found in plain.discounts.values())
    for text in [*texts, "the zebra sat", "qqq"]:
        np.testing.assert_allclose(probabilities(learn(texts, order), text), plainly(plain, text), rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.text("abcz", max_size=4), st.integers(1, 4))
def test_probabilities_of_all_that_may_follow_sum_to_one(texts, before, order):
    """P_0 is 1 / 30 for the end, the letters and 26 unseen ones: whatever went before, the sum is that of P_0."""
    model = learn(texts, order)
    letters = "abc" + "".join(chr(ord("A") + offset) for offset in range(26))
    following = [probabilities(model, before + letter)[len(before)] for letter in letters]
    assert sum(following) + probabilities(model, before)[-1] == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS, st.integers(1, 4))
def test_models_side_by_side_do_not_see_each_other(texts, others, order):
    together = learn([*texts, *others], order, [0] * len(texts) + [1] * len(others), 2)
    for text in [*texts, *others, "cab"]:
        for root, own in enumerate((texts, others)):
            np.testing.assert_allclose(
                probabilities(together, text, root), probabilities(learn(own, order), text), rtol=1e-12
            )


@settings(max_examples=40, deadline=None)
@given(TEXTS.flatmap(st.permutations), st.integers(1, 4))
def test_the_order_of_the_texts_does_not_matter(texts, order):
    for text in texts:
        assert probabilities(learn(texts, order), text).tolist() == (
            probabilities(learn(sorted(texts), order), text).tolist()
        )


def test_a_sequence_is_measured_the_same_among_others():
    model = learn(ENGLISH, 3)
    together, known = model.log2(sequences(ENGLISH))
    ends = np.cumsum([len(text) + 2 for text in ENGLISH])
    for text, log2, own in zip(ENGLISH, np.split(together, ends[:-1]), np.split(known, ends[:-1]), strict=True):
        alone, found = model.log2(sequences([text]))
        assert alone.tolist() == log2.tolist()
        assert found.tolist() == own.tolist()
        assert alone[0] == 0


def test_what_was_learned_is_likelier_than_what_was_not():
    model = learn(ENGLISH, 3)
    assert np.prod(probabilities(model, "the cat")) > 10 * np.prod(probabilities(model, "tac eht"))


def test_a_model_of_nothing_is_what_lies_beneath():
    model = learn(["ab"], 3, [0], 2)
    np.testing.assert_allclose(probabilities(model, "ab", root=1), [UNIFORM] * 3)


def test_boundaries_are_put_around_sequences():
    made = Sequences.of(np.array([5, 6, 7]), [2, 0, 1], np.array([0, 1, 0]))
    assert made.symbols.tolist() == [BEGIN, 5, 6, END, BEGIN, END, BEGIN, 7, END]
    assert made.positions.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert made.roots.tolist() == [0] * 4 + [1] * 2 + [0] * 3
    assert made.owners.tolist() == [0] * 4 + [1] * 2 + [2] * 3


def test_symbols_that_no_model_knows_are_told():
    made = Sequences.of(np.array([UNSEEN, codes("a")[0]]), [2], np.zeros(1, int))
    _, known = learn(["ab", "b"], 2).log2(made)
    assert known[1:].tolist() == [False, True, True]


def test_no_sequences_at_all():
    log2, known = learn(ENGLISH, 3).log2(sequences([]))
    assert log2.shape == known.shape == (0,)
