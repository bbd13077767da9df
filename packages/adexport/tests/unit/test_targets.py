"""Which sizes are made for whom: each network gets the sizes that it takes."""

import pytest

from adexport.designs import load_samples
from adexport.exporting import choose_targets
from adexport.networks import load_networks
from adexport.requests import ExportRequest

DESIGN = next(iter(load_samples().values())).design
NETWORKS = load_networks()


def chosen(networks: tuple[str, ...], sizes: tuple[str, ...]) -> set[tuple[str | None, str]]:
    request = ExportRequest(design=DESIGN.name, networks=networks, sizes=sizes)
    return {(target.network, target.size) for target in choose_targets(request, DESIGN, NETWORKS)}


def test_each_network_gets_the_sizes_it_takes() -> None:
    pairs = chosen(("google-ads", "meta"), ("300x250", "1080x1080"))
    assert pairs == {("google-ads", "300x250"), ("meta", "1080x1080")}


def test_a_size_that_two_networks_take_is_made_for_both() -> None:
    assert chosen(("google-ads", "iab"), ("300x250",)) == {("google-ads", "300x250"), ("iab", "300x250")}


def test_a_size_that_no_network_takes_stays_for_preflight_to_refuse() -> None:
    assert ("google-ads", "301x250") in chosen(("google-ads", "meta"), ("301x250", "1080x1080"))


@pytest.mark.parametrize("networks", [(), ("google-ads",)])
def test_without_sizes_there_are_targets_all_the_same(networks: tuple[str, ...]) -> None:
    assert len(chosen(networks, ())) > 5
