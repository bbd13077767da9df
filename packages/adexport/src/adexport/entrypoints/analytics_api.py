"""The figures on all exports over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from adexport.entrypoints.bodies import answer
from adexport.entrypoints.exports_api import parts
from adexport.entrypoints.openapi import gives
from adexport.figures import Analytics

MOST_DAYS = 366
router = APIRouter(prefix="/v1/analytics", tags=["exports"])


@router.get("", responses=gives(Analytics))
async def get_analytics(request: Request, days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = 14) -> Response:
    """Exports per UTC day, formats, causes of failure and times to ready, of the last days, today among them."""
    return answer(await parts(request).figures.analytics(days=days), headers={"Cache-Control": "no-cache"})
