"""Settings come from the environment, are checked, and are all documented."""

import dataclasses
from pathlib import Path

import pytest

from adexport.settings import PREFIX, Settings, SettingsError, read_settings

REFERENCE = Path(__file__).parents[4] / "docs/reference/settings.md"


def test_the_defaults_need_no_environment():
    settings = read_settings({})
    assert (settings.port, settings.host, settings.data) == (8000, "127.0.0.1", Path("data"))
    assert 1 <= settings.render_processes <= 8


def test_a_variable_is_read():
    settings = read_settings({"ADEXPORT_PORT": "9000", "ADEXPORT_DATA": "/srv/ads", "ADEXPORT_ROOT_PATH": "/ads/"})
    assert (settings.port, settings.root_path) == (9000, "/ads")
    assert settings.store_url == "sqlite+apsw:////srv/ads/adexport.db"


@pytest.mark.parametrize(
    ("given", "used", "shown"),
    [
        ("postgresql://ads:s%40cret@db:5432/ads", "postgresql://ads:s%40cret@db:5432/ads", "db:5432/ads"),
        ("postgres://ads:secret@db/ads", "postgresql://ads:secret@db/ads", "db/ads"),
        ("postgresql+asyncpg://db/ads", "postgresql://db/ads", "db/ads"),
        ("postgresql://ads:secret@[::1]:5432,b:5433/ads?sslmode=require", None, "[::1]:5432,b:5433/ads"),
        ("postgresql:///ads?host=/run/postgresql&password=secret", None, "/ads"),
    ],
)
def test_a_postgres_url_is_the_store_and_its_password_is_not_shown(given, used, shown):
    settings = read_settings({"ADEXPORT_STORE": given, "ADEXPORT_DATA": "/srv/ads"})
    assert settings.store_url == (used or given)
    assert settings.places == f"data in /srv/ads, events in Postgres at {shown}"


@pytest.mark.parametrize(
    "value",
    [
        "mysql://ads:hunter2@db/ads",
        "hunter2",
        "sqlite:///hunter2.db",
        "postgresql://ads:hun/ter2@db/ads",
        "postgresql://ads:12/hunter2@db/ads",
        "postgresql://ads:hun#ter2@db/ads",
        "postgresql://ads:hun?ter2@db/ads",
        "postgresql://ads:secret@db:hunter2/ads",
        "postgresql://ads:hunter2@db:65536/ads",
    ],
)
def test_a_wrong_store_is_told_without_its_password(value):
    with pytest.raises(SettingsError, match="ADEXPORT_STORE") as caught:
        read_settings({"ADEXPORT_STORE": value})
    assert "ter2" not in str(caught.value)
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in str(caught.value)


@pytest.mark.parametrize("value", ["0", "70000", "-1", "abc", "", "８０", "1e3", "9" * 5000])
def test_a_wrong_value_is_named(value):
    with pytest.raises(SettingsError, match="ADEXPORT_PORT"):
        read_settings({"ADEXPORT_PORT": value})


def test_every_setting_is_documented():
    text = REFERENCE.read_text()
    for field in dataclasses.fields(Settings):
        assert f"`{PREFIX}{field.name.upper()}`" in text
