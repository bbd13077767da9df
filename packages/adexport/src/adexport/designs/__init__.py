"""Designs: the JSON document that says how an ad looks in every size, its checks, and four samples."""

from adexport.designs.bundled import Sample, bundled_asset, load_samples
from adexport.designs.document import aspect_of
from adexport.designs.parsing import Design, parse_design

__all__ = ["Design", "Sample", "aspect_of", "bundled_asset", "load_samples", "parse_design"]
