"""One spelling of an address, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.auth.email_rules import ADDRESS_LENGTH_MAX, parse_email

ATOM = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~", min_size=1)
LABEL = st.from_regex(r"[a-zA-Z]([a-zA-Z0-9]{0,10}[a-zA-Z0-9])?", fullmatch=True)
ADDRESSES = st.builds(
    lambda local, labels: f"{'.'.join(local)[:64].strip('.')}@{'.'.join(labels)}.org",
    st.lists(ATOM, min_size=1, max_size=3),
    st.lists(LABEL, min_size=1, max_size=3),
).filter(lambda address: "=?" not in address)


@given(ADDRESSES)
def test_an_address_has_one_spelling_whatever_the_case(address):
    spelling = parse_email(address)
    assert spelling == parse_email(address.upper()) == parse_email(address.lower()) == parse_email(spelling)
    assert spelling.isascii()
    assert len(spelling) <= ADDRESS_LENGTH_MAX


@given(st.text(max_size=60))
def test_any_text_has_a_harmless_spelling_or_is_refused(text):
    try:
        spelling = parse_email(text)
    except ValueError:
        return
    assert not set(spelling) & set('\r\n\0 ,;:<>()[]"\\')
    assert spelling.count("@") == 1
    assert spelling == parse_email(spelling)


def test_a_name_in_another_script_is_the_one_that_dns_has():
    assert parse_email("bob@BÜCHER.example.org") == "bob@xn--bcher-kva.example.org"
    assert parse_email("bob@xn--bcher-kva.example.org") == "bob@xn--bcher-kva.example.org"
    assert parse_email("bob@ｅｘａｍｐｌｅ.org") == "bob@example.org"
    assert parse_email("bob@bu\u0308cher.example.org") == "bob@xn--bcher-kva.example.org"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@example",
        "ada@example.org.",
        "ada@@example.org",
        ".ada@example.org",
        "a..b@example.org",
        " ada@example.org",
        "ada@example.org\n",
        "ada@example.org\r\nBcc: all@example.org",
        "ada@example.org, bob@example.org",
        "Ada <ada@example.org>",
        '"ada lovelace"@example.org',
        "ada@[192.0.2.1]",
        "ada@localhost",
        "ada@hub.local",
        "ada@xn--a.example.org",
        "аda@example.org",  # a Cyrillic letter that looks like ours
        "mıke@example.org",  # a letter that becomes ours in capitals
        "ada@exam\u200bple.org",
        "=?utf-8?q?all=40example=2ecom=2c?=@example.org",  # which mail programs show as all@example.com,
        "=?utf-8?q?=0d=0a?=@example.org",
        "a" * 65 + "@example.org",
        "a@" + ".".join(["b" * 60] * 5) + ".org",
    ],
)
def test_what_is_no_address_of_the_internet_is_refused(text):
    with pytest.raises(ValueError, match="address"):
        parse_email(text)
