import numpy as np
import pytest

from chaffinch.scoring.caption_words import CaptionWords
from chaffinch.scoring.scorer import Batch, fingerprint


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("dog\nbeach\nu.s.\n")
    return str(path)


@pytest.fixture
def wordnet(tmp_path):
    folder = tmp_path / "wordnet"
    folder.mkdir()
    (folder / "index.noun").write_text("dog n 1 0 1 0 02084071\nscore n 1 0 1 0 09999999\n")
    (folder / "noun.exc").write_text("")
    (folder / "synsets.txt").write_text("n02084071\n")
    return folder


def measure(scorer, *captions):
    columns = scorer.score(Batch([""] * len(captions), captions), scorer.load("cpu"))
    return columns["listed_words"].tolist(), columns["listed_share"].tolist()


def test_counts_and_shares(words):
    counts, shares = measure(
        CaptionWords(words), "Two DOGS on a beach", "dog dog", "a cat", "The U.S. (dog), \u201cbeach\u201d!"
    )
    assert counts == [2, 2, 0, 3]
    assert shares == pytest.approx([2 / 5, 1, 0, 3 / 4])


def test_blank_captions_have_no_share(words):
    counts, shares = measure(CaptionWords(words), " \n", "...")
    assert counts == [0, 0]
    assert np.isnan(shares[0])
    assert shares[1] == 0


def test_punctuation_may_be_left_where_it_is_as_datacomp_does(words):
    assert measure(CaptionWords(words, strip_punctuation=False), "dog.", "a dog")[0] == [0, 1]


def test_first_meanings_in_wordnet_count(wordnet):
    counts, _ = measure(
        CaptionWords(wordnet=str(wordnet), synsets=str(wordnet / "synsets.txt")), "dogs, score", "scores"
    )
    assert counts == [1, 0]


def test_wordnet_of_another_version_is_noticed(wordnet):
    """Without `synsets` it is ImageNet-21k's list, of which this dictionary has but one."""
    with pytest.raises(ValueError, match=r"of the 21841 synsets in .*, 21840 are not in"):
        CaptionWords(wordnet=str(wordnet)).check()


def test_tables_are_named_by_what_the_files_hold(words, wordnet, tmp_path):
    moved = tmp_path / "moved.txt"
    moved.write_text("dog\nbeach\nu.s.\n")
    name = fingerprint(CaptionWords(words), "cpu")
    assert fingerprint(CaptionWords(str(moved)), "cpu") == name
    moved.write_text("dog\n")
    synsets = str(wordnet / "synsets.txt")
    others = [
        CaptionWords(str(moved)),
        CaptionWords(words, strip_punctuation=False),
        CaptionWords(wordnet=str(wordnet), synsets=synsets),
        CaptionWords(wordnet=str(wordnet)),
    ]
    assert len({name, *(fingerprint(other, "cpu") for other in others)}) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "there is no list: give words, .* or wordnet, .*apt install wordnet-base.*; nothing is downloaded"),
        ({"words": "a.txt", "wordnet": "b"}, "there are two lists: give words, "),
        ({"words": "none.txt"}, r"'none\.txt' is not a file here: give words"),
        ({"wordnet": "nowhere"}, r"'nowhere/index\.noun' is not a file here: give words"),
        ({"words": "a.txt", "synsets": "b.txt"}, "synsets say which words of WordNet count"),
    ],
)
def test_wrong_settings_are_refused_with_the_remedy(settings, message):
    for attempt in (CaptionWords(**settings).check, CaptionWords(**settings).identity):
        with pytest.raises(ValueError, match=message):
            attempt()
