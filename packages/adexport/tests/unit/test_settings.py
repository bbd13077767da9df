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
    assert settings.store == "sqlite+apsw:////srv/ads/adexport.db"


@pytest.mark.parametrize("value", ["0", "70000", "-1", "abc", "", "８０", "1e3", "9" * 5000])
def test_a_wrong_value_is_named(value):
    with pytest.raises(SettingsError, match="ADEXPORT_PORT"):
        read_settings({"ADEXPORT_PORT": value})


def test_every_setting_is_documented():
    text = REFERENCE.read_text()
    for field in dataclasses.fields(Settings):
        assert f"`{PREFIX}{field.name.upper()}`" in text
