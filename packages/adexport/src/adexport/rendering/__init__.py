"""Rendering: a design, a size and a row of fields to pixels. `render` does it all in one call."""

from collections.abc import Mapping

from adexport.designs.parsing import Design
from adexport.errors import RenderError
from adexport.rendering.layout import Assets, layout
from adexport.rendering.raster import ENGINE_VERSION, Raster, draw
from adexport.rendering.scene import Layout

__all__ = ["ENGINE_VERSION", "Assets", "Layout", "Raster", "RenderError", "draw", "layout", "render"]


def render(design: Design, width: int, height: int, fields: Mapping[str, str], assets: Assets) -> Raster:
    """Render one ad of `width` x `height` pixels.

    Raises RenderError (not retryable), naming the layer and the reason, for fields, assets or sizes that do not suit.
    """
    return draw(layout(design, width, height, fields, assets), assets)
