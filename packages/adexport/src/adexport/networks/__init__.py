"""Ad networks' rules as dated data, and the checks against them."""

from adexport.networks.checks import check_file, preflight, target_for, targets
from adexport.networks.loading import NetworkDataError, load_networks, parse_network
from adexport.networks.rules import AnySize, Network, Placement

__all__ = [
    "AnySize",
    "Network",
    "NetworkDataError",
    "Placement",
    "check_file",
    "load_networks",
    "parse_network",
    "preflight",
    "target_for",
    "targets",
]
