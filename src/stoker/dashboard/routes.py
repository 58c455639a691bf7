"""The API over HTTP: each address with its parameters, and answers that a browser need not be sent twice."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from stoker.dashboard.answers.compare import compare_answer, diff_answer
from stoker.dashboard.answers.curves import AXES, Axis, Curve, curve_of
from stoker.dashboard.answers.details import details_answer
from stoker.dashboard.answers.episodes import SORTS, EpisodeQuery, episodes_answer
from stoker.dashboard.answers.evaluations import evaluations_answer
from stoker.dashboard.answers.events import events_answer
from stoker.dashboard.answers.runs import runs_answer, spark
from stoker.dashboard.answers.series import SeriesQuery, series_answer
from stoker.dashboard.answers.shares import shares_answer
from stoker.dashboard.comparing import Statistic
from stoker.dashboard.downloads import Download, episodes_csv, series_csv
from stoker.dashboard.entrance import Receive, Scope, Send, send_refusal
from stoker.dashboard.index import Index, Reading
from stoker.dashboard.login import LOGIN, Login
from stoker.dashboard.pages import PageFiles
from stoker.dashboard.queries import Query, no_such, refused_value
from stoker.dashboard.series import SeriesCache, Smoothing
from stoker.dashboard.stream import EventStream, list_tag
from stoker.dashboard.summaries import Summary
from stoker.errors import ConfigError
from stoker.protocol import ProtocolError
from stoker.runs.events import KINDS
from stoker.runs.layout import safe_name
from stoker.service.refusals import refusal_of
from stoker.types import EpisodeStatus

__all__ = ["Refused", "Routes"]

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
Compute: TypeAlias = Callable[[Reading], Any]

_MOST_POINTS: Final = 20_000
_MOST_SERIES: Final = 32
_MOST_SPARKS: Final = 100
_MOST_COMPARED: Final = 100
_MOST_PAGE: Final = 10**7
_FILTERS = ("kind", "sort", "order", "status", "actor", "reward_from", "reward_to", "from", "to")
_JSON = "application/json"
_ORDERS = ("asc", "desc")


class Routes:
    """The addresses of a dashboard.

    Args:
        index: its runs.
        files: the files of its page.
        login: lets browsers in; None: nobody has to log in.
    """

    def __init__(self, index: Index, files: PageFiles, login: Login | None) -> None:
        self._index, self._files, self._login = index, files, login
        self._cache = SeriesCache()

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        handlers: dict[str, Handler] = {
            "/api/runs": self._runs,
            "/api/sparks": self._sparks,
            "/api/compare": self._compare,
            "/api/diff": self._diff,
            "/api/stream": self._stream,
            "/api/runs/{run_id}": self._details,
            "/api/runs/{run_id}/series": self._series,
            "/api/runs/{run_id}/series.csv": self._series_csv,
            "/api/runs/{run_id}/evaluations": self._evaluations,
            "/api/runs/{run_id}/episodes": self._episodes,
            "/api/runs/{run_id}/episodes.csv": self._episodes_csv,
            "/api/runs/{run_id}/events": self._events,
            "/api/runs/{run_id}/shares": self._shares,
            f"/{LOGIN}": self._log_in,
            "/{name:path}": self._file,
        }
        return [Route(path, _answered(handler), methods=["GET"]) for path, handler in handlers.items()]

    # The list -------------------------------------------------------------------------------------

    async def _runs(self, request: Request) -> Response:
        cursor = _query(request, "cursor").text("cursor")
        await self._index.until_scanned()
        await self._index.look()
        tag = _tag(list_tag(self._index), self._index.is_scanned, cursor)
        if _has(request, tag):
            return _unchanged(tag)
        answer = runs_answer(self._index, cursor)
        return _json(await to_thread.run_sync(msgspec.json.encode, answer), tag)

    async def _sparks(self, request: Request) -> Response:
        ids = _query(request, "ids").ids(_MOST_SPARKS)
        found: dict[str, list[float]] = {}
        cursors: list[str] = []
        for run_id in ids:
            if run_id in self._index.entries:
                cursor, found[run_id] = await self._index.read(
                    run_id, lambda reading: (reading.cursor, spark(reading.history))
                )
                cursors.append(cursor)
        tag = _tag(*ids, *cursors)
        return _unchanged(tag) if _has(request, tag) else _json(_encoded({"sparks": found}), tag)

    # One run --------------------------------------------------------------------------------------

    async def _details(self, request: Request) -> Response:
        _query(request)
        run_id = request.path_params["run_id"]
        await self._index.look(run_id)
        summary = self._index.entry(run_id).summary

        def details(reading: Reading) -> Any:
            if summary is None:
                raise no_such("run", run_id, [])
            return msgspec.structs.replace(
                details_answer(reading.history, summary, reading.share_read), cursor=reading.cursor
            )

        return await self._of_run(request, details, repr(summary))

    async def _series(self, request: Request) -> Response:
        query = _query(request, "name", "x", "from", "to", "points", "smooth", "cursor")
        wanted = SeriesQuery(
            tuple(_names(query)),
            query.choice("x", AXES, "steps"),
            query.number("from"),
            query.number("to"),
            query.integer("points", 1200, 2, _MOST_POINTS),
            _smoothing(query),
        )
        cursor, key = query.text("cursor"), request.path_params["run_id"]
        return await self._of_run(
            request,
            lambda reading: series_answer(
                reading.history,
                wanted,
                self._cache,
                key=key,
                stamp=reading.stamp,
                share_read=reading.share_read,
                cursor=cursor,
            ),
        )

    async def _evaluations(self, request: Request) -> Response:
        _query(request)
        return await self._of_run(
            request, lambda reading: {"evaluations": evaluations_answer(reading.history)}
        )

    async def _episodes(self, request: Request) -> Response:
        query = _query(request, *_FILTERS, "page", "size")
        wanted = _episode_query(query)
        page, size = query.integer("page", 0, 0, _MOST_PAGE), query.integer("size", 50, 1, 1000)
        return await self._of_run(
            request, lambda reading: episodes_answer(reading.history, wanted, page, size)
        )

    async def _events(self, request: Request) -> Response:
        query = _query(request, "kind", "page", "size", "order")
        kind = query.text("kind")
        if kind and kind not in KINDS:
            raise no_such("kind of event", kind, [*KINDS], "kind")
        page, size = query.integer("page", 0, 0, _MOST_PAGE), query.integer("size", 100, 1, 1000)
        is_descending = query.choice("order", _ORDERS, "desc") == "desc"
        return await self._of_run(
            request,
            lambda reading: events_answer(reading.history, kind, page, size, is_descending=is_descending),
        )

    async def _shares(self, request: Request) -> Response:
        query = _query(request, "points", "x")
        n_points = query.integer("points", 300, 2, 5000)
        axis: Axis = query.choice("x", AXES, "steps")
        return await self._of_run(
            request, lambda reading: {"parts": shares_answer(reading.history, n_points, axis)}
        )

    async def _of_run(self, request: Request, compute: Compute, *also: str) -> Response:
        """The answer of a run, unless the client has it."""
        given = request.headers.get("if-none-match", "")
        query: bytes = request.scope["query_string"]

        def answer(reading: Reading) -> tuple[str, bytes | None]:
            tag = _tag(request.url.path, query.decode("latin-1"), reading.cursor, *also)
            return tag, None if tag in given else _encoded(compute(reading))

        tag, body = await self._index.read(request.path_params["run_id"], answer)
        return _unchanged(tag) if body is None else _json(body, tag)

    # Downloads ------------------------------------------------------------------------------------

    async def _series_csv(self, request: Request) -> Response:
        query = _query(request, "name", "x")
        names = _names(query)
        axis: Axis = query.choice("x", AXES, "steps")
        return await self._download(
            request, "series", lambda reading: series_csv(reading.history, names, axis)
        )

    async def _episodes_csv(self, request: Request) -> Response:
        wanted = _episode_query(_query(request, *_FILTERS))
        return await self._download(
            request, "episodes", lambda reading: episodes_csv(reading.history, wanted)
        )

    async def _download(
        self, request: Request, what: str, compute: Callable[[Reading], Download]
    ) -> Response:
        run_id = request.path_params["run_id"]
        found = await self._index.read(run_id, compute, is_whole=True)
        summary = self._index.entry(run_id).summary
        name = run_id if summary is None else safe_name(f"{summary.group}/{summary.run_id}")
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(f'{name}-{what}.csv')}",
            "cache-control": "no-store",
        }
        return StreamingResponse(_in_threads(found.parts()), media_type="text/csv", headers=headers)

    # Several runs ---------------------------------------------------------------------------------

    async def _compare(self, request: Request) -> Response:
        query = _query(
            request, "ids", "series", "x", "smooth", "points", "group_by", "statistic", "from", "to"
        )
        ids, smoothing = query.ids(_MOST_COMPARED), _smoothing(query)
        name = query.text("series", "train.total_reward")
        axis: Axis = query.choice("x", AXES, "steps")
        group_by = query.text("group_by", "none")
        statistic: Statistic = query.choice("statistic", ("mean", "iqm"), "mean")
        n_points = query.integer("points", 400, 2, 5000)
        x_from, x_to = query.number("from"), query.number("to")

        def curve(reading: Reading, run_id: str) -> tuple[str, Curve | str]:
            try:
                found = curve_of(reading.history, name, axis)
            except ProtocolError as refusal:
                return reading.cursor, refusal.detail
            if smoothing is not None:
                values = self._cache.smoothed(
                    (run_id, name),
                    smoothing,
                    (reading.stamp, reading.history.cursor.generation),
                    len(found.values),
                    lambda first: found.values[first:],
                )
                found = found._replace(values=values)
            return reading.cursor, found

        runs: list[tuple[Summary, Curve | str]] = []
        cursors: list[str] = []
        for run_id in ids:
            await self._index.look(run_id)
            cursor, found = await self._index.read(
                run_id, lambda reading, run_id=run_id: curve(reading, run_id), is_whole=True
            )
            summary = self._index.entry(run_id).summary
            if summary is not None:
                runs.append((summary, found))
                cursors.append(f"{cursor} {summary.settings}")
        tag = _tag(request.url.path, request.url.query, *cursors)
        if _has(request, tag):
            return _unchanged(tag)

        def encoded() -> bytes:
            return _encoded(
                compare_answer(
                    runs,
                    group_by=group_by,
                    statistic=statistic,
                    n_points=n_points,
                    x_from=x_from,
                    x_to=x_to,
                )
            )

        try:
            return _json(await to_thread.run_sync(encoded), tag)
        except ConfigError as error:
            raise refused_value(error, "group_by") from error

    async def _diff(self, request: Request) -> Response:
        ids = _query(request, "ids").ids(_MOST_COMPARED)
        configs = {
            run_id: await self._index.read(run_id, lambda reading: reading.history.config) for run_id in ids
        }
        body = _encoded(diff_answer(configs))
        tag = _tag(hashlib.sha256(body).hexdigest())
        return _unchanged(tag) if _has(request, tag) else _json(body, tag)

    # The rest -------------------------------------------------------------------------------------

    async def _stream(self, request: Request) -> Response:
        run_id = _query(request, "run").text("run")
        await self._index.until_scanned()
        return EventStream(self._index, run_id or None)

    async def _log_in(self, request: Request) -> Response:
        code = _query(request, "code").text("code")
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
        if _has(request, found.etag):
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)


def _answered(handler: Handler) -> Handler:
    """The handler, with an answer to what it raises."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - answered, and logged if nobody expects it
            return Refused(refusal_of(error))

    return answer


class Refused(Response):
    """A refusal, as a response."""

    def __init__(self, refusal: ProtocolError) -> None:
        super().__init__(status_code=refusal.status)
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as an ASGI application."""
        await send_refusal(self._refusal, scope, send)


def _query(request: Request, *known: str) -> Query:
    return Query(request.scope["query_string"], known)


def _names(query: Query) -> list[str]:
    names = list(dict.fromkeys(query.texts("name", _MOST_SERIES)))
    if not names:
        raise ProtocolError("invalid", "name a series, such as train.total_reward", path="name")
    return names


def _smoothing(query: Query) -> Smoothing | None:
    text = query.text("smooth")
    try:
        return Smoothing.parse(text) if text else None
    except ConfigError as error:
        raise refused_value(error, "smooth") from error


def _episode_query(query: Query) -> EpisodeQuery:
    statuses = ("", EpisodeStatus.TERMINATED.value, EpisodeStatus.TRUNCATED.value)
    return EpisodeQuery(
        kind=query.choice("kind", ("train", "eval"), "train"),
        sort=query.choice("sort", SORTS, "episode"),
        is_descending=query.choice("order", _ORDERS, "asc") == "desc",
        status=query.choice("status", statuses, ""),
        actor=query.text("actor"),
        reward_from=query.number("reward_from"),
        reward_to=query.number("reward_to"),
        steps_from=query.number("from"),
        steps_to=query.number("to"),
    )


def _encoded(answer: Any) -> bytes:
    return msgspec.json.encode(answer)


def _tag(*parts: object) -> str:
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:20]}"'


def _has(request: Request, tag: str) -> bool:
    return tag in request.headers.get("if-none-match", "")


def _json(body: bytes, tag: str) -> Response:
    return Response(body, media_type=_JSON, headers={"etag": tag, "cache-control": "no-cache"})


def _unchanged(tag: str) -> Response:
    return Response(status_code=304, headers={"etag": tag})


async def _in_threads(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    while part := await to_thread.run_sync(next, parts, b""):
        yield part
