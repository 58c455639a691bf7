"""The API over HTTP: each address with its parameters, and answers that a browser need not be sent twice."""

from __future__ import annotations

from functools import partial
from typing import Final

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stoker.dashboard.answers.compare import compare_answer, diff_answer
from stoker.dashboard.answers.curves import AXES, Axis, Curve, curve_of
from stoker.dashboard.answers.runs import RunLister, spark
from stoker.dashboard.answers.series import smooth_values
from stoker.dashboard.index import Index
from stoker.dashboard.login import LOGIN, Login
from stoker.dashboard.pages import PageFiles
from stoker.dashboard.queries import refused_value
from stoker.dashboard.reading import Reading
from stoker.dashboard.responses import (
    Handler,
    answer_once,
    answered,
    has,
    query_of,
    smoothing_of,
    tag_of,
)  # fmt: skip
from stoker.dashboard.run_routes import RunRoutes
from stoker.dashboard.series import SeriesCache
from stoker.dashboard.stream import EventStream, list_tag
from stoker.errors import ConfigError
from stoker.protocol import ProtocolError
from stoker.runs.averaging import Statistic

_MOST_SPARKS: Final = 100
_MOST_COMPARED: Final = 100


class Routes:
    """The addresses of a dashboard.

    Args:
        index: its runs.
        files: the files of its page.
        login: lets browsers in; None: nobody has to log in.
    """

    def __init__(self, index: Index, files: PageFiles, login: Login | None) -> None:
        self._index, self._files, self._login = index, files, login
        self._cache = SeriesCache(index.memory_bytes // 2)  # by default two curves of ten million rows
        self._lister = RunLister(index)

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        of_run = RunRoutes(self._index, self._cache).handlers()
        handlers: dict[str, Handler] = {
            "/api/runs": self._runs,
            "/api/sparks": self._sparks,
            "/api/compare": self._compare,
            "/api/diff": self._diff,
            "/api/stream": self._stream,
            **{f"/api/runs/{{run_id}}{end}": handler for end, handler in of_run.items()},
            f"/{LOGIN}": self._log_in,
            "/{name:path}": self._file,
        }
        return [Route(path, answered(handler), methods=["GET"]) for path, handler in handlers.items()]

    # The list -------------------------------------------------------------------------------------

    async def _runs(self, request: Request) -> Response:
        cursor = query_of(request, "cursor").text("cursor")
        await self._index.until_scanned()
        await self._index.look()
        tag = tag_of(list_tag(self._index), self._index.is_scanned, cursor)
        return await answer_once(request, tag, lambda: self._lister.answer(cursor))

    async def _sparks(self, request: Request) -> Response:
        ids = query_of(request, "ids").ids(_MOST_SPARKS)
        known = [run_id for run_id in ids if run_id in self._index.entries]
        found = await self._index.read_each(
            known, lambda reading: (str(reading.cursor), spark(reading.history))
        )
        curves = {run_id: curve for run_id, (_, curve) in zip(known, found, strict=True)}
        tag = tag_of(*ids, *(cursor for cursor, _ in found))
        return await answer_once(request, tag, lambda: {"sparks": curves})

    # Several runs ---------------------------------------------------------------------------------

    async def _compare(self, request: Request) -> Response:
        query = query_of(
            request, "ids", "series", "x", "smooth", "points", "group_by", "statistic", "from", "to"
        )
        ids, smoothing = query.ids(_MOST_COMPARED), smoothing_of(query)
        name = query.text("series", "train.total_reward")
        axis: Axis = query.choice("x", AXES, "steps")
        group_by = query.text("group_by", "none")
        statistic: Statistic = query.choice("statistic", ("mean", "iqm"), "mean")
        n_points = query.integer("points", 400, 2, 5000)
        x_from, x_to = query.number("from"), query.number("to")

        def curve(reading: Reading) -> tuple[str, Curve | str]:
            try:
                found = curve_of(reading.history, name, axis)
            except ProtocolError as refusal:
                return reading.cursor, refusal.detail
            if smoothing is not None:
                key, stamp = reading.run_id, reading.stamp
                values = smooth_values(reading.history, found, smoothing, self._cache, key=key, stamp=stamp)
                found = found._replace(values=values)
            return reading.cursor, found

        index = self._index
        await index.look_at_new(ids)
        read = await index.read_each(ids, curve, is_whole=True)
        entries = [index.entry(run_id) for run_id in ids]
        runs = [
            (summary, found)
            for entry, (_, found) in zip(entries, read, strict=True)
            if (summary := entry.summary) is not None
        ]
        stand = [(cursor, entry.facts_version) for entry, (cursor, _) in zip(entries, read, strict=True)]
        how = {
            "group_by": group_by,
            "statistic": statistic,
            "n_points": n_points,
            "x_from": x_from,
            "x_to": x_to,
        }
        try:
            tag = tag_of(request.url.path, request.url.query, index.nonce, *stand)
            return await answer_once(request, tag, partial(compare_answer, runs, **how))
        except ConfigError as error:
            raise refused_value(error, "group_by") from error

    async def _diff(self, request: Request) -> Response:
        ids = query_of(request, "ids").ids(_MOST_COMPARED)
        found = await self._index.read_each(
            ids, lambda reading: (reading.history.config, f"{reading.stamp}.{reading.history.n_configs}")
        )
        configs = {run_id: config for run_id, (config, _) in zip(ids, found, strict=True)}
        tag = tag_of(*ids, *(stamp for _, stamp in found))
        return await answer_once(request, tag, lambda: diff_answer(configs))

    # The rest -------------------------------------------------------------------------------------

    async def _stream(self, request: Request) -> Response:
        run_id = query_of(request, "run").text("run")
        await self._index.until_scanned()
        return EventStream(self._index, run_id or None)

    async def _log_in(self, request: Request) -> Response:
        code = query_of(request, "code").text("code")
        if self._login is None:
            raise ProtocolError("not-found", "nobody has to log in here")
        if request.method != "GET":
            raise ProtocolError("method-not-allowed", "HEAD: a link is opened with GET")
        cookie = self._login.open(code, request.scope)
        if cookie is None:
            way_out = "it is good once: open the one that the server printed last in its terminal"
            raise ProtocolError("unauthenticated", f"this link is not good any more; {way_out}")
        # Not a redirect: a browser sends no strict cookie along one that began on another page.
        page = '<!doctype html><title>stoker</title><meta http-equiv="refresh" content="0; url=./">'
        return Response(
            page, media_type="text/html", headers={"set-cookie": cookie, "cache-control": "no-store"}
        )

    async def _file(self, request: Request) -> Response:
        found = await to_thread.run_sync(self._files.get, request.path_params["name"])
        headers = {"etag": found.etag, "cache-control": "no-cache"}
        if has(request, found.etag):
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)
