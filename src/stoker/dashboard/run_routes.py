"""The addresses of one run: what it is, its curves, its rows and its events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from stoker.dashboard.answers.actors import ACTOR_SORTS, ActorSort, actors_answer
from stoker.dashboard.answers.curves import AXES, Axis
from stoker.dashboard.answers.details import details_answer
from stoker.dashboard.answers.episodes import SORTS, EpisodeQuery, episodes_answer
from stoker.dashboard.answers.evaluations import evaluations_answer
from stoker.dashboard.answers.events import LEVELS, events_answer
from stoker.dashboard.answers.series import SeriesQuery, series_answer
from stoker.dashboard.answers.shares import shares_answer
from stoker.dashboard.downloads import Download, episodes_csv, series_csv
from stoker.dashboard.index import Index
from stoker.dashboard.queries import Query, no_such
from stoker.dashboard.reading import Reading
from stoker.dashboard.responses import (
    Bodies,
    Handler,
    json_answer,
    query_of,
    smoothing_of,
    tag_of,
    unchanged,
)  # fmt: skip
from stoker.dashboard.series import SeriesCache
from stoker.protocol import ProtocolError
from stoker.runs.event_rows import KINDS
from stoker.runs.events import Level
from stoker.runs.layout import safe_name
from stoker.types import EpisodeStatus

Compute: TypeAlias = Callable[[Reading], Any]

_MOST_POINTS: Final = 20_000
_MOST_SERIES: Final = 32
_FILTERS = ("kind", "sort", "order", "status", "actor", "reward_from", "reward_to", "from", "to")


class RunRoutes:
    """The addresses of one run.

    Args:
        index: the runs.
        cache: smoothed curves that are continued.
    """

    def __init__(self, index: Index, cache: SeriesCache) -> None:
        self._index, self._cache, self._bodies = index, cache, Bodies()

    def handlers(self) -> dict[str, Handler]:
        """All of them, by their addresses."""
        return {
            "": self._details,
            "/series": self._series,
            "/series.csv": self._series_csv,
            "/evaluations": self._evaluations,
            "/episodes": self._episodes,
            "/episodes.csv": self._episodes_csv,
            "/actors": self._actors,
            "/events": self._events,
            "/shares": self._shares,
        }

    async def _details(self, request: Request) -> Response:
        query_of(request)
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
        query = query_of(request, "name", "x", "from", "to", "points", "smooth", "cursor")
        wanted = SeriesQuery(
            tuple(_names(query)),
            query.choice("x", AXES, "steps"),
            query.number("from"),
            query.number("to"),
            query.integer("points", 1200, 2, _MOST_POINTS),
            smoothing_of(query),
        )
        cursor = query.text("cursor")
        return await self._of_run(
            request,
            lambda reading: series_answer(
                reading.history,
                wanted,
                self._cache,
                key=reading.run_id,
                stamp=reading.stamp,
                share_read=reading.share_read,
                cursor=cursor,
            ),
        )

    async def _evaluations(self, request: Request) -> Response:
        query_of(request)
        return await self._of_run(
            request, lambda reading: {"evaluations": evaluations_answer(reading.history)}
        )

    async def _episodes(self, request: Request) -> Response:
        query = query_of(request, *_FILTERS, "page", "size")
        wanted, rows = _episode_query(query), query.page()
        return await self._of_run(request, lambda reading: episodes_answer(reading.history, wanted, rows))

    async def _actors(self, request: Request) -> Response:
        query = query_of(request, "sort", "order", "text", "page", "size")
        sort: ActorSort = query.choice("sort", ACTOR_SORTS, "last_at")
        is_descending, text, rows = query.is_descending("desc"), query.text("text"), query.page()
        return await self._of_run(
            request,
            lambda reading: actors_answer(
                reading.history, sort, is_descending=is_descending, text=text, rows=rows
            ),
        )

    async def _events(self, request: Request) -> Response:
        query = query_of(request, "kind", "level", "page", "size", "order")
        kind = query.text("kind")
        level: Level = query.choice("level", LEVELS, "info")
        if kind and kind not in KINDS:
            raise no_such("kind of event", kind, [*KINDS], "kind")
        rows, is_descending = query.page(100), query.is_descending("desc")
        return await self._of_run(
            request,
            lambda reading: events_answer(
                reading.history, kind, rows, level=level, is_descending=is_descending
            ),
        )

    async def _shares(self, request: Request) -> Response:
        query = query_of(request, "points", "x")
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
            tag = tag_of(request.url.path, query.decode("latin-1"), reading.cursor, *also)
            return tag, None if tag in given else self._bodies.get(
                tag, lambda: msgspec.json.encode(compute(reading))
            )

        tag, body = await self._index.read(request.path_params["run_id"], answer)
        return unchanged(tag) if body is None else json_answer(body, tag)

    async def _series_csv(self, request: Request) -> Response:
        query = query_of(request, "name", "x")
        names = _names(query)
        axis: Axis = query.choice("x", AXES, "steps")
        return await self._download(
            request, "series", lambda reading: series_csv(reading.history, names, axis)
        )

    async def _episodes_csv(self, request: Request) -> Response:
        wanted = _episode_query(query_of(request, *_FILTERS))
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


def _names(query: Query) -> list[str]:
    names = list(dict.fromkeys(query.texts("name", _MOST_SERIES)))
    if not names:
        raise ProtocolError("invalid", "name a series, such as train.total_reward", path="name")
    return names


def _episode_query(query: Query) -> EpisodeQuery:
    statuses = ("", EpisodeStatus.TERMINATED.value, EpisodeStatus.TRUNCATED.value)
    return EpisodeQuery(
        kind=query.choice("kind", ("train", "eval"), "train"),
        sort=query.choice("sort", SORTS, "episode"),
        is_descending=query.is_descending("asc"),
        status=query.choice("status", statuses, ""),
        actor=query.text("actor"),
        reward_from=query.number("reward_from"),
        reward_to=query.number("reward_to"),
        steps_from=query.number("from"),
        steps_to=query.number("to"),
    )


async def _in_threads(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    while part := await to_thread.run_sync(next, parts, b""):
        yield part
