"""Networks: the shipped rules as read from their sources, a user's own rows, and what preflight says."""

from datetime import date
from pathlib import Path

import msgspec
import pytest

from adexport.networks import (
    NetworkDataError,
    check_file,
    load_networks,
    parse_network,
    preflight,
    target_for,
    targets,
)
from adexport.planning import MAX_SIDE, Target, plan

NETWORKS = load_networks()
OWN = """
name = "{name}"
title = "Publisher"
as_of = 2026-01-31
source = "contract"

[[group]]
name = "backup"
formats = ["jpeg", "gif"]
max_bytes = 40_000

[group.sizes]
backup-box = "300x250"
"""


class Poster(msgspec.Struct, frozen=True):
    """A design as far as planning looks at it."""

    def fields(self) -> list[str]:
        return []


def planned(places, formats):
    return plan(Poster(), [{}], places, formats, engine="1")


def findings(places, formats) -> list[tuple[str, str]]:
    return [(problem.code, problem.severity) for problem in preflight(planned(places, formats), NETWORKS)]


def test_the_networks_of_the_table_are_there():
    assert list(NETWORKS) == [
        "ad-manager",
        "amazon",
        "campaign-manager-360",
        "dv360",
        "google-ads",
        "iab",
        "linkedin",
        "meta",
        "tiktok",
    ]


@pytest.mark.parametrize(
    ("network", "size", "max_bytes", "accepted", "refused"),
    [
        ("google-ads", "300x250", 150_000, "gif", "webp"),
        ("google-ads", "980x120", 150_000, "png", "webp"),
        ("iab", "970x250", 250_000, "webp", "mp4"),
        ("iab", "970x90", 200_000, "jpeg", "mp4"),
        ("iab", "120x60", 50_000, "png", "mp4"),
        ("iab", "1080x1920", 300_000, "png", "mp4"),
        ("meta", "1080x1350", 30_000_000, "jpeg", "gif"),
        ("linkedin", "1200x628", 5_000_000, "gif", "webp"),
        ("linkedin", "360x360", 5_000_000, "png", "webp"),
        ("campaign-manager-360", "4000x4000", 9_500_000, "png", "webp"),
        ("dv360", "375x667", 5_000_000, "jpeg", "webp"),
        ("ad-manager", "728x90", 1_000_000, "png", "webp"),
        ("amazon", "414x125", None, "png", "webp"),
        ("tiktok", "540x960", 500_000_000, "mp4", "png"),
    ],
)
def test_rules_are_those_of_the_sources(network, size, max_bytes, accepted, refused):
    width, height = map(int, size.split("x"))
    placement = NETWORKS[network].placement_for(width, height)
    assert placement is not None
    assert (placement.size, placement.max_bytes) == (size, max_bytes)
    assert accepted in placement.formats
    assert refused not in placement.formats


def test_google_ads_has_its_twenty_sizes():
    assert len(NETWORKS["google-ads"].placements) == 20
    assert NETWORKS["google-ads"].placement_for(301, 250) is None
    assert NETWORKS["linkedin"].placement_for(359, 360) is None


def test_every_network_says_where_and_when_it_was_read():
    for network in NETWORKS.values():
        assert network.source
        assert date(2026, 1, 1) <= network.as_of
        for placement in network.placements:
            assert max(placement.width, placement.height) <= MAX_SIDE
            assert list(placement.formats) == sorted(placement.formats)
    assert NETWORKS["meta"].unverified
    assert NETWORKS["amazon"].unverified
    assert "video only" in NETWORKS["tiktok"].note


def test_the_reference_page_shows_every_placement():
    page = (Path(__file__).parents[4] / "docs/reference/networks.md").read_text(encoding="utf-8")
    for network in NETWORKS.values():
        assert f"### {network.title} (`{network.name}`)" in page
        for placement in network.placements:
            assert f"| {placement.name} | {placement.size} |" in page


def test_own_rules_add_a_network(tmp_path):
    (tmp_path / "publisher.toml").write_text(OWN.format(name="publisher"))
    for extra in (tmp_path, tmp_path / "publisher.toml"):
        networks = load_networks(extra)
        assert set(networks) == {*NETWORKS, "publisher"}
        assert networks["publisher"].placement_for(300, 250).max_bytes == 40_000


def test_own_rows_win_over_shipped_ones(tmp_path):
    (tmp_path / "mine.toml").write_text(OWN.format(name="google-ads"))
    google = load_networks(tmp_path)["google-ads"]
    assert len(google.placements) == 20
    assert google.placement_for(300, 250).name == "backup-box"
    assert google.placement_for(728, 90).max_bytes == 150_000
    assert "own rows: contract" in google.source


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "Publisher"', "", "missing required field `title`"),
        ('source = "contract"', 'sauce = "contract"', "sauce"),
        ("40_000", "0", r"\$\.group\[0\]\.max_bytes"),
        ("40_000", '"40 kB"', r"\$\.group\[0\]\.max_bytes"),
        ("300x250", "300 x 250", r"\$\.group\[0\]\.sizes"),
        ("300x250", "0x250", r"\$\.group\[0\]\.sizes"),
        ('"jpeg"', '"jpg"', "group 'backup': unknown format 'jpg'. Choose from"),
        ('["jpeg", "gif"]', "[]", r"\$\.group\[0\]\.formats"),
        ("2026-01-31", '"soon"', r"\$\.as_of"),
        ('"publisher"', '"Big Publisher"', r"\$\.name"),
        ("[[group]]", "[[group", "not valid TOML"),
        ('backup-box = "300x250"', 'a = "300x250"\nb = "300x250"', "the size '300x250' 2 times"),
        (
            "[group.sizes]",
            "[group.any_size]\nmin_width=2\nmax_width=1\nmin_height=1\nmax_height=1\n[group.sizes]",
            "minimum above",
        ),
    ],
)
def test_bad_rules_are_refused_by_file_and_key(old, new, words):
    text = OWN.format(name="publisher")
    assert old in text
    with pytest.raises(NetworkDataError, match=words) as caught:
        parse_network(text.replace(old, new), "mine.toml")
    assert str(caught.value).startswith("mine.toml")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(NetworkDataError, match=r"holds no \.toml file"):
        load_networks(tmp_path)
    with pytest.raises(NetworkDataError, match=r"absent\.toml"):
        load_networks(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(NetworkDataError, match="not UTF-8"):
        load_networks(tmp_path)


def test_a_file_that_obeys_has_no_problem():
    placement = NETWORKS["google-ads"].placement_for(300, 250)
    assert check_file(placement, "jpeg", 300, 250, 150_000) == []


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (("webp", 300, 250, 1000), "format_not_accepted"),
        (("jpeg", 600, 500, 1000), "wrong_size"),
        (("jpeg", 250, 300, 1000), "wrong_size"),
        (("jpeg", 300, 250, 150_001), "too_heavy"),
    ],
)
def test_a_file_that_breaks_a_rule_is_told_so(file, code):
    (problem,) = check_file(NETWORKS["google-ads"].placement_for(300, 250), *file)
    assert (problem.code, problem.severity, problem.size) == (code, "error", "300x250")
    assert problem.action


def test_all_broken_rules_are_reported():
    assert len(check_file(NETWORKS["google-ads"].placement_for(300, 250), "webp", 1, 1, 999_999)) == 3


def test_a_good_plan_has_no_findings():
    assert findings(targets(NETWORKS["google-ads"]), ["jpeg"]) == []
    assert findings([Target(width=123, height=45)], ["webp"]) == []


def test_preflight_finds_a_size_that_the_network_does_not_take():
    places = [target_for(NETWORKS["google-ads"], 301, 250), Target(width=300, height=250)]
    made = planned(places, ["jpeg"])
    (problem,) = preflight(made, NETWORKS)
    assert (problem.code, problem.severity, problem.size) == ("size_not_covered", "error", "301x250")
    assert problem.action.startswith("The nearest it takes: 300x250, ")
    assert len(made.cells) == 1


def test_a_plan_of_nothing_but_refused_sizes_says_so():
    made = planned([target_for(NETWORKS["google-ads"], 1, 1)], ["png", "jpeg"])
    (problem,) = preflight(made, NETWORKS)
    assert (made.cells, made.batches, problem.code) == ((), (), "size_not_covered")
    assert problem.message == "Google Ads has no placement of 1x1."


def test_preflight_finds_a_format_that_is_not_accepted_once_for_all_sizes():
    made = planned(targets(NETWORKS["google-ads"]), ["webp", "jpeg"])
    (problem,) = preflight(made, NETWORKS)
    assert (problem.code, problem.severity, problem.format) == ("format_not_accepted", "error", "webp")
    assert problem.action == "Choose one of: png, jpeg.", "only what is written here can be chosen"
    assert {cell.format for cell in made.cells} == {"jpeg"}


def test_a_format_that_some_sizes_accept_is_a_warning():
    both = parse_network(
        OWN.format(name="publisher") + '\n[[group]]\nname="n"\nformats=["webp"]\n[group.sizes]\nwide="728x90"\n', "x"
    )
    made = planned(targets(both), ["webp", "jpeg"])
    severities = {p.format: p.severity for p in preflight(made, {"publisher": both}) if p.code == "format_not_accepted"}
    assert severities == {"webp": "warning", "jpeg": "warning"}


@pytest.mark.parametrize("places", [targets(NETWORKS["tiktok"]), (target_for(NETWORKS["tiktok"], 1, 1),)])
def test_tiktok_is_told_to_take_no_images(places):
    (problem,) = preflight(planned([*places, Target(width=300, height=250)], ["png", "jpeg"]), NETWORKS)
    assert problem.severity == "error"
    assert problem.message.startswith("TikTok takes no still images, only 3gp, avi, mov, mp4, mpeg.")
    assert "Leave TikTok out" in problem.action


def test_preflight_warns_of_what_it_does_not_know_and_of_heavy_pngs():
    assert findings(targets(NETWORKS["amazon"]), ["jpeg"]) == [("limit_unknown", "warning")]
    assert findings([target_for(NETWORKS["google-ads"], 970, 250)], ["png"]) == [("png_loses_colours", "warning")]
    assert findings([target_for(NETWORKS["google-ads"], 300, 250)], ["png"]) == []


def test_a_limit_that_fitting_may_not_reach_is_a_warning_for_its_sizes():
    small, large = Target(width=300, height=250, max_bytes=20_000), Target(width=1080, height=1080, max_bytes=20_000)
    (problem,) = preflight(planned([small, large], ["jpeg"]), NETWORKS)
    assert (problem.code, problem.severity, problem.size) == ("may_not_fit", "warning", "1080x1080")
    assert problem.message == (
        "Files in jpeg of 1080x1080 may not fit in 20 kB: with a photo they come down to about 60 kB."
    )


def test_preflight_refuses_a_network_without_rules():
    assert findings([Target(width=300, height=250, network="nowhere")], ["png"]) == [("unknown_network", "error")]
