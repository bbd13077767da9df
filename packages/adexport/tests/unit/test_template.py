"""The template for AWS: accepted by its linter, and its numbers fit each other and what the code does."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from adexport.export import RENDER_ATTEMPTS
from adexport.settings import read_settings

TEMPLATE = Path(__file__).parents[4] / "deploy/template.yaml"


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as their text."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: f"{suffix} {node.value}")


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)
    return {name: resource["Properties"] for name, resource in document["Resources"].items()}


def test_the_linter_finds_nothing():
    linter = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([str(linter), str(TEMPLATE)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_batch_at_work_does_not_come_a_second_time(resources):
    assert resources["Batches"]["VisibilityTimeout"] >= 6 * resources["Renderer"]["Timeout"]


def test_the_function_ends_before_aws_ends_it(resources):
    settings = read_settings({k: str(v) for k, v in resources["Renderer"]["Environment"]["Variables"].items()})
    assert settings.render_seconds * 2 <= resources["Renderer"]["Timeout"], "two batches, each with its whole time"
    took = settings.render_processes * settings.render_memory_mb
    assert took <= resources["Renderer"]["MemorySize"] - 512, "processes that render, and the one that talks"
    assert settings.cache_mb <= resources["Renderer"]["EphemeralStorage"]["Size"] / 2


def test_the_last_try_of_ad_export_is_the_last_of_the_queue(resources):
    assert resources["Batches"]["RedrivePolicy"]["maxReceiveCount"] == RENDER_ATTEMPTS
    assert resources["DeadBatches"]["MessageRetentionPeriod"] >= resources["Batches"]["MessageRetentionPeriod"]


def test_outcomes_outlive_every_message(resources):
    (rule,) = (r for r in resources["Files"]["LifecycleConfiguration"]["Rules"] if r["Id"] == "old-outcomes")
    days = resources["Batches"]["MessageRetentionPeriod"] / 86_400
    assert rule["ExpirationInDays"] >= 2 * days


def test_the_handler_is_there_and_needs_its_settings(resources):
    module, _, name = resources["Renderer"]["Handler"].rpartition(".")
    assert importlib.util.find_spec(module) is not None
    code = f"import {module} as function\ntry: function.{name}\nexcept Exception as error: print(type(error).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, timeout=60)
    assert done.stdout.strip() == "SettingsError", json.dumps(done.stderr[-500:])
