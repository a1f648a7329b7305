"""Which hosts a request may name, and whose pages may change something."""

import pytest

from runstream_server.gateway.sites import Sites, parse_authority, parse_origin

HERE = Sites(
    "tracking.lan", ["ml.example.com", "api.example.com:8443", "*.pods.example"], ["https://ui.test"]
)
OURS = [
    *("localhost", "LOCALHOST:5000", "localhost.", "127.0.0.1:5000", "10.0.0.1", "[::1]:5000", "[fe80::1]"),
    *(
        "tracking.lan:1",
        "ml.example.com",
        "ml.example.com:5000",
        "ML.Example.com.:5000",
        "api.example.com:8443",
    ),
    *("api.example.com", "a.pods.example", "a.b.pods.example:80", "203.0.113.9:5000", "localhost:"),
]
FOREIGN = [
    *("evil.com", "localhost.evil.com", "10.evil.com", "192.168.evil.com:5000", "172.16.evil.com", "fd00:x"),
    *("10.0.0.1.nip.io", "127.0.0.1.nip.io", "notml.example.com", "example.com", "pods.example", "fd00::1"),
    *("api.example.com:80", "xpods.example", "", " ", "localhost:99999", "localhost:-1", "localhost:5000:1"),
    *(
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "1.2.3.4.5",
        "[::1",
        "::1",
        "[1.2.3.4]",
    ),
    *("localhost@evil.com", "localhost/evil", "localhost#", "localhost?x", "localhost\\x", "local host"),
    *("evil.com, localhost", "[fe80::1%25eth0]", "ⓛocalhost", "a" * 300, "..", "localhost..", "*", "x.127"),
]


@pytest.mark.parametrize("name", OURS)
def test_our_own_names_and_all_addresses_are_ours(name):
    assert HERE.host([name])


@pytest.mark.parametrize("name", FOREIGN)
def test_every_other_name_is_foreign(name):
    assert HERE.host([name]) is None


def test_one_host_is_named_and_no_more():
    assert HERE.host([]) is None
    assert HERE.host(["localhost", "localhost"]) is None


def test_a_star_allows_every_name_that_is_one():
    anywhere = Sites("0.0.0.0", ["*"])
    assert anywhere.host(["evil.com"])
    assert anywhere.host(["evil.com/x"]) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:5000", "http://localhost:5000"),
        ("ml.example.com", "https://ml.example.com"),
        ("ml.example.com:443", "https://ml.example.com"),
        ("ml.example.com", "http://ml.example.com:80"),
        ("[::1]:5000", "http://[0:0::1]:5000"),
        ("localhost:5000", "https://ui.test"),
    ],
)
def test_our_pages_and_those_allowed_may_change_things(host, origin):
    asked = HERE.host([host])
    assert asked
    assert HERE.may_change(asked, [origin], "same-origin")
    assert HERE.may_change(asked, [], "")


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://evil.com",
            "null",
            "",
            "http://localhost.evil.com",
            "http://localhost",
            "http://localhost:5001",
        ),
        *("http://localhost:5000.evil.com", "http://evil.com:5000", "file://"),
        *("http://localhost:5000@evil.com", "http://evil.com#localhost:5000", "http://localhost:5000/x"),
        *(
            "localhost:5000",
            "chrome-extension://localhost:5000",
            "https://ui.test:444",
            "http://ui.test",
            "*",
        ),
    ],
)
def test_pages_of_others_may_not(origin):
    asked = HERE.host(["localhost:5000"])
    assert asked
    assert not HERE.may_change(asked, [origin], "")
    assert not HERE.may_change(asked, [origin, "http://localhost:5000"], "")
    assert not HERE.shares_with(origin)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_browser_that_leaves_the_origin_out_still_says_where_from(site):
    asked = HERE.host(["localhost:5000"])
    assert asked
    assert not HERE.may_change(asked, [], site)


@pytest.mark.parametrize("entry", ["http://x", "a b", "", "*.1.2.3.4", "a/b", "*.*.x", "x:port"])
def test_a_wrong_entry_is_said_at_start(entry):
    with pytest.raises(ValueError, match="is no host"):
        Sites("", [entry])
    with pytest.raises(ValueError, match="is no origin"):
        Sites("", [], ["*"])


def test_addresses_have_one_spelling():
    one, other = parse_authority("[0:0:0::1]:80"), parse_authority("[::1]:80")
    assert one == other
    assert parse_origin("HTTPS://Example.COM") == parse_origin("https://example.com:443")
