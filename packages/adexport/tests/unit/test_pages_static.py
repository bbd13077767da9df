"""What is sent to the browser: small, all our own, nothing inline, every name in the page's files."""

import gzip
import re
from pathlib import Path

import pytest

from adexport.web.view import HERE, STATIC

SCRIPTS = sorted(STATIC.glob("*.js"))
SHEETS = sorted(STATIC.glob("*.css"))
TEMPLATES = sorted((HERE / "templates").glob("*.html"))


def test_all_scripts_together_stay_small() -> None:
    assert sum(len(gzip.compress(script.read_bytes(), mtime=0)) for script in SCRIPTS) <= 40_000


@pytest.mark.parametrize("path", [*SCRIPTS, *SHEETS, *TEMPLATES], ids=lambda path: path.name)
def test_every_file_says_what_it_is_and_names_no_other_place(path: Path) -> None:
    text = path.read_text()
    assert re.match(r"(//|/\*|\{#) ", text)
    assert [url for url in re.findall(r"https?://[\w.]+", text) if url != "http://www.w3.org"] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_hold_no_inline_script_or_style(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=['\"]|javascript:", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)


def test_every_icon_that_is_used_is_drawn() -> None:
    drawn = set(re.findall(r'id="i-([\w-]+)"', (HERE / "templates/icons.html").read_text()))
    text = "".join(template.read_text() for template in TEMPLATES)
    used = set(re.findall(r'icon\("([\w-]+)"\)', text)) | set(re.findall(r'href="#i-([\w-]+)"', text))
    assert used <= drawn


def test_every_custom_property_that_is_used_is_a_token() -> None:
    tokens = set(re.findall(r"^\s*(--[\w-]+):", (STATIC / "tokens.css").read_text(), re.MULTILINE))
    used = {name for sheet in SHEETS for name in re.findall(r"var\((--[\w-]+)\)", sheet.read_text())}
    assert used <= tokens
    assert tokens - used == set()
