"""Addresses: what names one place has one form, and hosts are those that the standard library finds."""

import string
import urllib.parse

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chaffinch.filters.addresses import LONGEST_HOST, hosts, places


def host_of(address):
    return hosts(pa.array([address], pa.string()))[0].as_py()


def place_of(address):
    return places(pa.array([address], pa.string()))[0].as_py()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("http://example.org/a.jpg", "example.org"),
        ("HTTPS://WWW.Example.ORG", "www.example.org"),
        ("http://example.org:8080/a", "example.org"),
        ("http://example.org:/a", "example.org"),
        ("http://user@example.org/", "example.org"),
        ("http://us%40er:p@ss@example.org/", "example.org"),
        ("http://example.org@other.net/", "other.net"),
        ("http://other.net\\@example.org/", "other.net"),
        ("http://example.org?q=http://other.net/", "example.org"),
        ("http://example.org#@other.net", "example.org"),
        ("http://example.org./a", "example.org"),
        ("//example.org/a", "example.org"),
        ("example.org", "example.org"),
        ("example.org:443/a:b@c", "example.org"),
        ("  http://example.org/a b \n", "example.org"),
        ("http://exa\nmple.org/", "example.org"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://BÜCHER.example/", "xn--bcher-kva.example"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("http://b%C3%BCcher.example/", "xn--bcher-kva.example"),
        ("http://faß.example/", "xn--fa-hia.example"),
        ("http://例え。テスト/", "xn--r8jz45g.xn--zckzah"),
        ("http://under_score.example/", "under_score.example"),
        ("http://[2001:DB8::1]:80/", "[2001:db8::1]"),
        ("http://10.0.0.1/a", "10.0.0.1"),
        ("ftp://example.org/a", "example.org"),
        ("data:image/png;base64,AAAA", None),
        ("mailto:somebody@example.org", None),
        ("http:///a", None),
        ("http:/a", None),
        ("http://", None),
        ("/a/b", None),
        ("not an address", None),
        ("http://" + "a" * (LONGEST_HOST - 4) + ".org/", "a" * (LONGEST_HOST - 4) + ".org"),
        ("http://" + "a" * (LONGEST_HOST - 3) + ".org/", None),
        ("", None),
        (" ", None),
        (None, None),
    ],
)
def test_hosts(address, host):
    assert host_of(address) == host


@pytest.mark.parametrize(
    "same",
    [
        [
            "http://example.org",
            "https://example.org/",
            "HTTP://Example.Org:80/",
            "//me:x@example.org:443/#top",
            "example.org",
        ],
        ["http://example.org/a%7eb", "http://example.org/a~b"],
        ["http://example.org/a%2fb", "http://example.org/a%2Fb"],
        ["http://example.org/ä b", "http://example.org/%C3%A4%20b", "http://example.org/%c3%a4%20b"],
        ["http://example.org?a=b", "http://example.org/?a=b#c"],
        ["http://bücher.example/a", "http://xn--bcher-kva.example/a"],
    ],
)
def test_one_place_has_one_form(same):
    assert len({place_of(address) for address in same}) == 1


@pytest.mark.parametrize(
    "other",
    [
        [
            "http://example.org/a",
            "http://example.org/A",
            "http://example.org/a/",
            "http://example.org/a?",
            "http://www.example.org/a",
        ],
        ["http://example.org:8080/", "http://example.org/"],
        ["http://example.org/a%2Fb", "http://example.org/a/b"],
        ["http://example.org/a?b=c", "http://example.org/a?b=d"],
    ],
)
def test_other_places_have_other_forms(other):
    assert len({place_of(address) for address in other}) == len(other)


def test_what_is_no_address_stays_as_it_is():
    assert place_of("  data:image/png;base64,AA== ") == "data:image/png;base64,AA=="
    assert place_of("") is None
    assert place_of(None) is None


labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
addresses = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "HTTPS", "ftp"]),
    st.sampled_from(["", "user@", "user:pass@"]),
    names,
    st.sampled_from(["", ":80", ":8080", ":"]),
    st.sampled_from(["", "/", "/a/b.jpg", "?q=1", "#f", "/%41%zz?x=%C3%A4#y", "/ä"]),
)


@given(st.lists(addresses, max_size=8))
def test_hosts_are_those_of_the_standard_library(given_):
    expected = [urllib.parse.urlsplit(address).hostname for address in given_]
    assert hosts(pa.array(given_, pa.string())).to_pylist() == expected


shuffled = st.text(string.printable + "%%%%..//::[]@\\\x00\x1f\x7fäİ\u3000", max_size=12)


@given(st.lists(st.one_of(st.none(), addresses, shuffled, shuffled.map("http://{}".format)), max_size=8))
@example(["0\x1f?", "http://a%2fb/", "http://a%2525", "a..", "//[::1]", "a/%%34%31"])
def test_forms_are_final_and_of_each_alone(given_):
    """Brought to its form twice an address is the same, and its neighbours do not matter."""
    array = pa.array(given_, pa.string())
    for form in (hosts, places):
        found = form(array)
        assert found.to_pylist() == [form(array[index : index + 1])[0].as_py() for index in range(len(array))]
        assert form(found).to_pylist() == found.to_pylist()
