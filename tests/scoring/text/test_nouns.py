from pathlib import Path

import pytest

from chaffinch.scoring.text.nouns import packaged_synsets, read_wordnet, read_words, singulars

# Lines as WordNet has them; the numbers are made up but for their form.
INDEX = """\
  1 This software and database is being provided to you, the LICENSEE, by
  2 Princeton University under the following license.
dog n 3 2 @ ~ 3 1 00000011 00000099 00000012
glass n 1 1 @ 1 1 00000013
glasses n 1 1 @ 1 1 00000099
man n 1 1 @ 1 0 00000014
bus n 1 1 @ 1 0 00000015
ice_cream n 1 1 @ 1 0 00000016
ox n 2 1 @ 2 0 00000017 00000098
wolf n 1 1 @ 1 0 00000018
axis n 1 1 @ 1 0 00000097
ax n 1 1 @ 1 0 00000011
"""
EXCEPTIONS = "oxen ox\naxes ax axis\nwolves wolf\ndice die\n"
SYNSETS = "".join(f"n{number:08d}\n" for number in range(11, 19))


@pytest.fixture
def wordnet(tmp_path):
    files = [tmp_path / name for name in ("index.noun", "noun.exc", "synsets.txt")]
    for path, text in zip(files, (INDEX, EXCEPTIONS, SYNSETS), strict=True):
        path.write_text(text)
    return files


@pytest.mark.parametrize(
    ("word", "counts"),
    [
        ("dog", True),
        ("dogs", True),
        ("glass", True),
        ("glasses", False),  # a noun of its own, whose meaning is not listed
        ("man", True),
        ("men", True),
        ("bus", True),
        ("buses", True),
        ("ox", True),
        ("oxen", True),
        ("oxes", True),
        ("wolves", True),
        ("wolfs", True),
        ("axes", True),  # the first singular decides
        ("axis", False),
        ("ice_cream", True),
        ("dice", False),
        ("run", False),
        ("", False),
        ("s", False),
    ],
)
def test_the_first_meaning_of_the_first_noun_decides(wordnet, word, counts):
    assert read_wordnet(*wordnet).counts(word) is counts


def test_windows_line_ends_are_read(wordnet):
    for path in wordnet:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_wordnet(*wordnet).counts("oxen")


def test_of_a_list_words_and_their_plurals_count(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# animals\nDog\n\nbus  # not an animal\nbox\nlady\nleaf\n", encoding="utf-8")
    words = read_words(path)
    wanted = ["dog", "dogs", "bus", "buses", "box", "boxes", "lady", "ladies", "leaf", "leaves"]
    assert [word for word in [*wanted, "cat", "animals", "#"] if words.counts(word)] == wanted


def test_singulars_come_in_wordnets_order():
    assert singulars("masses") == ["masse", "mass"]
    assert singulars("women") == ["woman"]
    assert singulars("dog") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog\nhot dog\n", r"words\.txt', line 2: 'hot dog' is more than one word: give one a line"),
        ("# nothing\n", "holds no word"),
        (None, "cannot be read: .*No such file"),
        (b"\xff", "cannot be read: .*utf-8"),
    ],
)
def test_a_broken_list_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "words.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_words(path)


@pytest.mark.parametrize(
    ("which", "text", "message"),
    [
        (0, "dog n 9\n", r"index\.noun', line 1 is not one of WordNet's index: 'dog n 9'"),
        (0, "dog\n", "is not one of WordNet's index"),
        (2, "n00000011\nv00000012\n", r"synsets\.txt', line 2: 'v00000012' is no noun synset: give such as n0"),
        (2, "\n", "holds no synset"),
        (2, "n10000000\nn10000001\n", "of the 2 synsets in .*, 2 are not in .*of another version of WordNet"),
    ],
)
def test_broken_files_of_wordnet_are_refused_with_their_place(wordnet, which, text, message):
    wordnet[which].write_text(text)
    with pytest.raises(ValueError, match=message):
        read_wordnet(*wordnet)


def test_the_package_timm_carries_the_synsets_of_imagenet():
    names = Path(packaged_synsets()).read_text().split()
    assert len(set(names)) == 21_841
    assert "n02084071" in names  # dog
    assert {len(name) for name in names} == {9}
