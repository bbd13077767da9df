"""The compose file names only commands, options, settings, places and ports that exist; no engine is needed."""

import dataclasses
import json
import re
from pathlib import Path

import click
import jsonschema_rs
import pytest
import yaml

from adexport.entrypoints.cli import main
from adexport.settings import PREFIX, Settings, read_settings

ROOT = Path(__file__).parents[4]
DEPLOY = ROOT / "deploy"
OWN = ("api", "worker")
SPECIFICATION = Path(__file__).with_name("data") / "compose_spec.json"
"""The schema of the Compose Specification, as docker-compose 1.29.2 brings it (Apache License 2.0)."""

OLDEST, NEWEST = 13, 17
"""Versions of Postgres that the library takes, and whose image keeps its data at the place that is mounted."""


def expanded(text: str, **given: str) -> str:
    """The text as compose reads it: `${NAME:-default}` replaced."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), text)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(expanded((DEPLOY / "compose.yaml").read_text()))


@pytest.mark.parametrize("name", OWN)
def test_the_commands_exist_with_their_options(compose, name):
    command, *options = compose["services"][name]["command"]
    main.commands[command].make_context(command, options)
    with pytest.raises(click.NoSuchOption):
        main.commands[command].make_context(command, ["--not-there"])


@pytest.mark.parametrize("name", OWN)
def test_the_settings_exist_and_reach_the_database(compose, name):
    environment, postgres = compose["services"][name]["environment"], compose["services"]["postgres"]
    named = {f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert {variable for variable in environment if variable.startswith(PREFIX)} <= named
    settings = read_settings({name: str(value) for name, value in environment.items()})
    user, password, database = (postgres["environment"][f"POSTGRES_{key}"] for key in ("USER", "PASSWORD", "DB"))
    assert settings.store_url == f"postgresql://{user}:{password}@postgres:5432/{database}"
    assert environment["TIDINGS_STORE"] == settings.store_url
    assert compose["services"][name]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert {user, database} <= set(postgres["healthcheck"]["test"])


def test_a_password_of_ones_own_is_used_everywhere():
    text = expanded((DEPLOY / "compose.yaml").read_text(), POSTGRES_PASSWORD="other")
    services = yaml.safe_load(text)["services"]
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "other"
    assert all(":other@" in services[name]["environment"][f"{PREFIX}STORE"] for name in OWN)


def test_only_this_machine_reaches_the_port_that_is_served(compose):
    (port,) = compose["services"]["api"]["ports"]
    assert port == f"127.0.0.1:{Settings.port}:{Settings.port}"
    assert f":{Settings.port}/healthz" in " ".join(compose["services"]["api"]["healthcheck"]["test"])
    assert not any("ports" in compose["services"][name] for name in ("postgres", "worker"))


def test_server_and_workers_share_the_folder_of_the_files(compose):
    environment = dict(re.findall(r"(\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    assert environment["ADEXPORT_DATA"] == "/data"
    assert all(compose["services"][name]["volumes"] == ["files:/data"] for name in OWN)
    named = {volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]}
    assert named == set(compose["volumes"])


def test_the_image_is_built_from_what_is_there(compose):
    build = compose["services"]["api"]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert context == ROOT
    text = (context / build["dockerfile"]).read_text()
    copied = [part for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for part in line.split()]
    assert len(copied) == 3
    ignored = (context / f"{build['dockerfile']}.dockerignore").read_text().splitlines()
    for part in copied:
        assert (context / part).exists(), part
        assert f"!{part}" in ignored
    version = re.search(r"^FROM python:(3\.\d+)-slim$", text, re.MULTILINE)
    assert version is not None
    assert version[1] in ("3.11", "3.12", "3.13", "3.14")


def test_the_file_is_one_that_compose_reads(compose):
    validator = jsonschema_rs.validator_for(json.loads(SPECIFICATION.read_text()))
    assert [error.message for error in validator.iter_errors(compose)] == []
    misspelt = {**compose, "services": {"api": {**compose["services"]["api"], "comand": ["serve"]}}}
    assert not validator.is_valid(misspelt)
    assert not validator.is_valid({**compose, "services": {"api": {"restart": True}}})


def test_what_is_named_is_declared(compose):
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {name for name in ("image", "build") if name in service}


def test_the_image_of_the_database_fits_the_library_and_the_volume(compose):
    postgres = compose["services"]["postgres"]
    version = re.fullmatch(r"postgres:(\d+)", postgres["image"])
    assert version is not None
    assert OLDEST <= int(version[1]) <= NEWEST
    assert postgres["volumes"] == ["database:/var/lib/postgresql/data"]


def test_the_command_line_reads_the_store_that_is_set(compose):
    from tidings.cli.inspect import store_status

    (option,) = (option for option in store_status.params if option.name == "store_url")
    assert all(option.envvar in compose["services"][name]["environment"] for name in OWN)
