"""What moves on a job's page: server-sent events, or one answer for a page that polls."""

import asyncio
import json

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from helpers.errors import HelpersError
from helpers.pages import jobs, logs
from helpers.pages.views import Visit

PAUSE_S = 1.0


async def stream(visit: Visit, render) -> Response:
    """The lines after `after`, and the parts of the page that changed."""
    cursor = visit.query.get("after", "")
    if "poll" in visit.query:
        return JSONResponse(await run_in_threadpool(_update, visit, cursor, render))

    async def events():
        nonlocal cursor
        parts, ended = {}, False
        yield "retry: 2000\n\n"
        while not ended:
            news = await run_in_threadpool(_update, visit, cursor, render)
            cursor = news["cursor"] or cursor
            changed = {k: v for k, v in news["parts"].items() if parts.get(k) != v}
            parts |= changed
            ended = news["ended"]
            yield f"data: {json.dumps(news | {'parts': changed})}\n\n"
            await asyncio.sleep(PAUSE_S)

    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _update(visit: Visit, cursor: str, render) -> dict:
    kind = visit.path["kind"]
    news = {"lines": [], "left_out": 0, "cursor": cursor, "parts": {}, "ended": False,
            "problem": ""}  # fmt: skip
    try:
        job = jobs.about(visit.session, kind, visit.path["id"])
        over = job["ended"]
        if kind in logs.TYPES:
            reader = logs.of_page(visit, ended=over)
            over = reader.complete
            news |= {
                "lines": reader.after(cursor), "left_out": reader.left_out,
                "cursor": reader.cursor, "reset": not cursor.startswith(reader.id),
            }  # fmt: skip
        shown = {"job": job} | jobs.moving(visit.session, job)
        for part in ("state", "progress"):
            news["parts"][part] = render(f"job_{part}.html", visit.session, shown)
        news["ended"] = over
    except HelpersError as error:
        news["problem"] = str(error)
    return news
