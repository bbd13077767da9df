"""The names that the service answers to."""

import pytest

from adexport.entrypoints.hosts import LOOPBACK, allowed_hosts, host_name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("127.0.0.1:8000", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("localhost.:80", "localhost"),
        ("[::1]:8000", "::1"),
        ("evil.example:8000", "evil.example"),
        ("127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        ("", ""),
        ("[::1", "::1"),
    ],
)
def test_the_name_in_a_host_header(header, name):
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("listening_on", "named", "allowed"),
    [
        ("127.0.0.1", (), LOOPBACK),
        ("127.0.0.1", ("ads.example.com",), (*LOOPBACK, "ads.example.com")),
        ("127.0.0.1", ("*",), ()),
        ("0.0.0.0", (), ()),
        ("0.0.0.0", ("ads.example.com",), (*LOOPBACK, "ads.example.com")),
    ],
)
def test_which_names_are_answered_to(listening_on, named, allowed):
    assert allowed_hosts(listening_on, named) == allowed
