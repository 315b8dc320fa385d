"""How hosts are listed, and which lists an organization may have."""

import pytest

from letta_common.errors import InvalidArgument
from letta_sandbox.destinations import Destination, Destinations, canonical, read_destination, read_destinations
from letta_tools.domain.executions.egress import Ceiling

READ = {
    "api.example.com": ("api.example.com", 443),
    "API.Example.com.": ("api.example.com", 443),
    "api.example.com:8443": ("api.example.com", 8443),
    "*.example.com": ("*.example.com", 443),
    "*": ("*", 443),
    "*:*": ("*", 0),
    "10.0.0.7:5000": ("10.0.0.7", 5000),
    "[::1]:5000": ("::1", 5000),
    "::1": ("::1", 443),
    "[2001:DB8::0:1]": ("2001:db8::1", 443),
}


@pytest.mark.parametrize("text", list(READ))
def test_hosts_and_ports_are_read(text):
    assert read_destination(text) == Destination(*READ[text])


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "a b",
        "a:0",
        "a:65536",
        "a:443:1",
        "https://a",
        "a/b",
        "u@a",
        "*.",
        "*.*.a",
        "a.*",
        "-",
        "a\n",
        "é.com",
        "a" * 300,
    ],
)
def test_what_is_no_host_is_refused(text):
    with pytest.raises(InvalidArgument):
        read_destination(text)


def test_lists_have_an_end():
    with pytest.raises(InvalidArgument, match="at most"):
        read_destinations(f"h{i}.example.com" for i in range(201))


MATCHES = [
    ("api.example.com", "api.example.com", 443, True),
    ("api.example.com", "api.example.com", 80, False),
    ("api.example.com", "evil-api.example.com", 443, False),
    ("api.example.com", "api.example.com.evil.org", 443, False),
    ("*.example.com", "a.b.example.com", 443, True),
    ("*.example.com", "example.com", 443, False),
    ("*.example.com", "evilexample.com", 443, False),
    ("*.0.0.1", "127.0.0.1", 443, False),
    ("*", "anything.org", 443, True),
    ("*", "anything.org", 22, False),
    ("*:*", "anything.org", 22, True),
]


@pytest.mark.parametrize(("rule", "host", "port", "meant"), MATCHES)
def test_a_rule_means_what_it_says(rule, host, port, meant):
    assert read_destination(rule).matches(host, port) is meant


def test_there_is_one_way_to_write_a_host():
    assert [canonical(text) for text in ("A.b.", "[::1]", "::0001", "2130706433", "0x7f.1", "a..b", "a@b", "a b")] == [
        "a.b",
        "::1",
        "::1",
        "2130706433",
        "0x7f.1",
        "",
        "",
        "",
    ]


def test_organizations_stay_below_the_ceiling():
    ceiling = Ceiling(read_destinations(["*.example.com", "api.other.org:8443"]))

    assert ceiling.check(["a.example.com", "*.b.example.com", "api.other.org:8443"])
    for text in ("example.com", "a.example.com:80", "*", "*.org", "api.other.org", "a.example.com:*"):
        with pytest.raises(InvalidArgument, match="tools_egress_hosts_of_organizations"):
            ceiling.check([text])


def test_a_ceiling_that_was_lowered_cuts_what_was_opened_before():
    opened = ["a.example.com", "b.example.com"]

    assert [str(each) for each in Ceiling(read_destinations(["b.example.com"])).cut(opened)] == ["b.example.com:443"]
    assert Ceiling().cut(opened) == ()


def test_nothing_is_open_by_default():
    assert not Destinations()
    assert Destinations(read_destinations(["a.org"]))
