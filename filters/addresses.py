"""Web addresses in a form in which equal places are equal texts, and the hosts they name."""

import re
import urllib.parse
from collections.abc import Callable

import idna
import pyarrow as pa
import pyarrow.compute as pc

LONGEST_HOST = 253
"""Characters; the domain name system knows no longer names."""

# What no host may hold; percent-encoding is looked at before.
_FORBIDDEN = r"\x00-\x20\x7f#/:<>?@\[\\\]^|"
_HOST = rf"\[[0-9A-Fa-f:.]+\]|[^{_FORBIDDEN}]+"
# Scheme, user and password, host, port and the rest; as browsers do, a backslash ends the host like a slash.
_PARTS = (
    r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#\\]*@)?"
    rf"(?P<host>{_HOST})(?::(?P<port>[0-9]*))?(?P<rest>(?s:[/?#\\].*)?)$"
)
# A host, and perhaps a path, without any scheme.
_BARE = rf"^(?:{_HOST})(?::[0-9]+)?(?:[/?#\\]|$)"
_DEFAULT_PORTS = pa.array(["", "80", "443"])
# What needs more than lower case: letters beyond ASCII, and percent-encoding.
_SPECIAL = r"[^\x21-\x7e]|%"
_BLANKS = "".join(map(chr, range(0x21)))
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def hosts(addresses: pa.Array) -> pa.Array:
    """The hosts of addresses: lower case, internationalised names in their ASCII form (xn--), no final dots.

    Scheme, user, password and port are left out. An address may come without its scheme, so that a bare name of a host
    is one too.

    Args:
        addresses: n strings.

    Returns:
        n strings; null where there is none: for null, and for what names no host or one of more than 253 characters.

    Source: WHATWG, URL Standard, host parsing; Unicode Technical Standard 46 for internationalised names.
    """
    return _hosts(_parts(_trimmed(addresses)))


def places(addresses: pa.Array) -> pa.Array:
    """Addresses without what does not tell two places apart.

    The scheme, user and password, the ports 80 and 443, and what follows a # are left out; the host is as `hosts` gives
    it; an empty path is "/"; percent-encoding is brought to one form. Path and query are otherwise compared as they
    are, case included.

    Args:
        addresses: n strings.

    Returns:
        n strings; what has no host is only trimmed; null for null and for what is empty.

    Source: RFC 3986, section 6.2, syntax-based normalization.
    """
    trimmed = _trimmed(addresses)
    parts = _parts(trimmed)
    host, port, rest = _hosts(parts), pc.struct_field(parts, "port"), pc.struct_field(parts, "rest")
    port = pc.if_else(pc.is_in(port, _DEFAULT_PORTS), "", pc.binary_join_element_wise("", port, ":"))
    rest = pc.replace_substring_regex(rest, "(?s)#.*$", "")
    rest = pc.if_else(pc.match_substring_regex(rest, "^/"), rest, pc.binary_join_element_wise("/", rest, ""))
    rest = _each(rest, _SPECIAL, _one_encoding)
    return pc.coalesce(pc.binary_join_element_wise(host, port, rest, ""), trimmed)


def _trimmed(addresses: pa.Array) -> pa.Array:
    """Without the blanks around and the line breaks inside, which browsers overlook; null where nothing is left."""
    texts = _each(addresses.cast(pa.string()), r"^[\x00-\x20]|[\x00-\x20]$|[\t\r\n]", _without_blanks)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _parts(texts: pa.Array) -> pa.Array:
    """N structs of host, port and rest; null where there is no host."""
    bare = pc.fill_null(pc.match_substring_regex(texts, _BARE), False)
    return pc.extract_regex(pc.if_else(bare, pc.binary_join_element_wise("", texts, "//"), texts), _PARTS)


def _hosts(parts: pa.Array) -> pa.Array:
    names = pc.utf8_lower(pc.struct_field(parts, "host"))
    names = pc.replace_substring_regex(_each(names, _SPECIAL, _ascii_name), r"\.+$", "")
    fits = pc.and_(pc.greater(pc.binary_length(names), 0), pc.less_equal(pc.binary_length(names), LONGEST_HOST))
    return pc.if_else(fits, names, pa.scalar(None, pa.string()))


def _each(texts: pa.Array, pattern: str, change: Callable[[str], str]) -> pa.Array:
    """Applies a function to the texts in which a pattern is found, which are few."""
    found = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
    if not pc.any(found).as_py():
        return texts
    changed = pa.array([change(text) for text in texts.filter(found).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, found, changed)


def _without_blanks(address: str) -> str:
    return re.sub("[\t\r\n]", "", address.strip(_BLANKS))


def _ascii_name(host: str) -> str:
    """A host's name as it is looked up, left as it is where it cannot be; empty where it hides what no host holds."""
    name = urllib.parse.unquote(host)
    if re.search(f"[%{_FORBIDDEN}]", name):
        return ""
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError:
        return name.lower()


def _one_encoding(rest: str) -> str:
    """Path and query with everything percent-encoded that has to be, in capitals, and nothing else.

    A percent sign that encodes nothing is encoded itself: otherwise what is decoded behind it could make it encode.
    """
    encoded = urllib.parse.quote(re.sub("%(?![0-9A-Fa-f]{2})", "%25", rest), safe=_ASCII)
    return re.sub("%[0-9A-Fa-f]{2}", _decoded_if_plain, encoded)


def _decoded_if_plain(match: re.Match[str]) -> str:
    character = chr(int(match[0][1:], 16))
    return character if character in _UNRESERVED else match[0].upper()
