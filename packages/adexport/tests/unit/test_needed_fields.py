"""Columns that a design needs, and those it can do without."""

import contextlib
import copy
from random import Random

import pytest

from adexport.catalogue import read_design, sample_designs
from adexport.designs import load_samples
from adexport.errors import DesignError
from adexport.feeds import check_fields, parse_feed
from adexport.needed_fields import needed_fields


def test_a_default_makes_a_field_optional_unless_it_is_shown_without_one_elsewhere():
    document = {
        "layers": [
            {"text": "{{ a }} and {{ b | default:'x' }}", "show_if": "c"},
            {"layers": [{"text": "{{ b | upper | default:'y' }}{{ d | default:'z' }}"}, {"text": "{{ d | upper }}"}]},
        ],
        "constants": {"accent": "{{ e }}"},
    }
    assert needed_fields(document) == ["a", "d", "e"]


def test_text_that_is_no_template_does_not_count():
    assert needed_fields({"description": "Write {{ like this", "title": "{{ ! }}"}) == []


@pytest.mark.parametrize("name", list(load_samples()))
def test_every_sample_feed_has_what_its_design_needs(name):
    stored = sample_designs(load_samples())[name]
    needed = needed_fields(stored.document)
    assert needed
    assert set(needed) <= set(stored.design.fields())
    problems = check_fields(needed, parse_feed(stored.feed_csv))
    assert [problem for problem in problems if problem.severity == "error"] == []


def test_no_mutation_of_a_sample_upsets_the_reading_of_designs():
    """Whatever stands in a document, it is read or refused as a DesignError."""
    strange = [None, -1, 1e308, "", [], {}, "{{a}}", "$x", True, "1e999px", [[[]]], {"use": "x"}, "(" * 500]
    random = Random(2)
    for stored in sample_designs(load_samples()).values():
        for _ in range(60):
            document = copy.deepcopy(stored.document)
            *way, last = random.choice(list(_places(document)))
            place = document
            for step in way:
                place = place[step]
            place[last] = random.choice(strange)
            with contextlib.suppress(DesignError):
                read_design(document)
    broken = copy.deepcopy(stored.document)
    broken["layers"] = 3
    with pytest.raises(DesignError):
        read_design(broken)


def _places(value, way=()):
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in steps:
        yield (*way, step)
        yield from _places(each, (*way, step))
