from __future__ import annotations

import pytest

from elysium_core.errors import ConfigError
from elysium_core.viewer.access import TOKEN_VARIABLE, Access

TOKEN = "a1b2c3d4e5f6"


def test_this_machine_alone_needs_no_token():
    for host in ("127.0.0.1", "::1", "localhost"):
        assert Access.choose(host, {}).token == ""
    assert Access.choose("127.0.0.1", {TOKEN_VARIABLE: TOKEN}).token == TOKEN


def test_other_networks_always_need_one():
    made = Access.choose("0.0.0.0", {})
    assert len(made.token) >= 32
    assert made.token != Access.choose("0.0.0.0", {}).token
    assert not made.allows_token("")
    assert made.allows_token(made.token)
    assert Access.choose("192.168.1.5", {TOKEN_VARIABLE: TOKEN}).token == TOKEN


@pytest.mark.parametrize("token", ["short", "x" * 200, "has blanks in it", "ümlaut123456789"])
def test_a_weak_token_is_refused(token: str):
    with pytest.raises(ConfigError) as caught:
        Access.choose("0.0.0.0", {TOKEN_VARIABLE: token})
    assert caught.value.code == "VIEWER_TOKEN"
    assert token not in str(caught.value)


@pytest.mark.parametrize("host", ["robot", "", "300.1.1.1", "localhost.evil.org"])
def test_a_host_that_is_no_address_is_named(host: str):
    with pytest.raises(ConfigError) as caught:
        Access.choose(host, {})
    assert caught.value.code == "VIEWER_HOST"
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "localhost:8420", True),
        ("http://localhost:8420", "localhost:8420", True),
        ("https://robot:8420", "robot:8420", True),
        ("http://localhost:9999", "localhost:8420", False),
        ("http://evil.org", "localhost:8420", False),
        ("null", "localhost:8420", False),
        ("http://[", "localhost:8420", False),
        ("file://", "localhost:8420", False),
        ("http://localhost:8420.evil.org", "localhost:8420", False),
    ],
)
def test_only_our_own_page_connects(origin: str | None, host: str, allowed: bool):
    assert Access("127.0.0.1", "").allows_origin(origin, host) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8420", True),
        ("127.0.0.1", True),
        ("[::1]:8420", True),
        ("evil.org:8420", False),
        ("", False),
        ("[", False),
    ],
)
def test_a_foreign_name_for_this_machine_is_refused_without_a_token(host: str, allowed: bool):
    assert Access("127.0.0.1", "").allows_host(host) is allowed
    assert Access("127.0.0.1", TOKEN).allows_host(host)


def test_the_address_holds_the_token_where_browsers_do_not_send_it():
    assert Access("127.0.0.1", "").address(8420) == "http://localhost:8420/"
    assert Access("0.0.0.0", TOKEN).address(8420, "robot") == f"http://robot:8420/#token={TOKEN}"
    assert Access("fe80::1", TOKEN).address(1) == f"http://[fe80::1]:1/#token={TOKEN}"
