"""Postgres URLs that cannot be read are refused at once, and the refusal shows no password."""

import pytest

from tidings import Service
from tidings.errors import ServiceError


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql://u:secret@h:abc/x", "no number from 1 to 65535"),
        ("postgresql://u:secret@h:99999/x", "no number from 1 to 65535"),
        ("postgresql://u:secret@h:0/x", "no number from 1 to 65535"),
        ("postgresql://u:secret@a:5432,b:secret/x", "no number from 1 to 65535"),
        ("postgresql://h/x?port=5432,secret", "no number from 1 to 65535"),
        ("postgresql://u:secret/x@h/x", "such as @ and / in a password"),
        ("postgresql://u:secret@[::1/x", "an IPv6 address as [::1]:5432"),
        ("postgresql://u:secret@::1]/x", "an IPv6 address as [::1]:5432"),
        ("postgresql://u:secret@a,,b/x", "A host in the Postgres URL cannot be read"),
    ],
)
def test_a_malformed_url_is_refused_without_its_password(url: str, part: str) -> None:
    with pytest.raises(ServiceError) as caught:
        Service("shop", store=url)
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost/shop",
        "postgresql://u:p%40%2F%3A@h:5432/x",
        "postgresql://h1,h2:5433/x?target_session_attrs=read-write",
        "postgresql://[::1]:5432/x",
        "postgresql://[fe80::1%25eth0]/x",
        "postgresql:///x?host=/run/postgresql&port=5433",
        "postgresql://%2Frun%2Fpostgresql/x",
        "postgresql://:5432/x",
        "postgresql://u@h:/x",
    ],
)
def test_a_url_that_libpq_takes_is_taken(url: str) -> None:
    assert Service("shop", store=url).store_url == url
