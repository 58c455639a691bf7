"""Streams of remote actors, and a program whose session takes them in and that sends itself SIGKILL.

Its argument is an ``Order`` as JSON. Started again, it finds out from ``session.streams`` what to send next.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
from dying import agent_for, die

from stoker import ActMode, EpisodeRecord, EpisodeStatus, Experience, TrainingRun, TrainingSession
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEnded, StreamEvent, StreamMoved
from stoker.session import StreamPoint
from stoker.types import ActorId

ON, OVER, CUT = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do.

    Attributes:
        root: the runs directory; the run's name is ``numbered``.
        agent: as ``agent_for`` names it.
        until: the event to die before, counted from the first one ever.
        flushes: whether all events before that are durable by then.
        settings: of the session.
    """

    root: str
    agent: str
    until: int
    flushes: bool
    settings: dict[str, Any]


def events_of(kind: str, n_rounds: int = 60) -> list[StreamEvent]:
    """What three actors send in turn, each round one record of each; a fourth one comes and goes.

    Episodes of ``a`` end in a terminal state, and those of ``b`` are cut, but every second one of these is
    begun anew in its midst. Every second one of ``c`` is not learned.
    """
    rng, policy = np.random.default_rng(1), agent_for(kind).policy()
    seen: dict[str, Any] = {}
    played = dict.fromkeys("abc", (0, 0, 0))  # seq, episode, length
    events: list[StreamEvent] = []
    for number in range(3 * n_rounds):
        actor = "abc"[number % 3]
        seq, episode, length = played[actor]
        seq, after = seq + 1, rng.uniform(-1, 1, 3).astype(np.float32)
        is_learned, is_last = not (actor == "c" and episode % 2), length == 6
        if length == 0 or (is_last and actor == "b" and episode % 2):
            if length:
                episode += 1
            start = EpisodeStarted(actor, number, seq, after)
            events.append(start if is_learned else StreamMoved(actor, seq, after))
            played[actor] = seq, episode, 1
        elif not is_learned:
            events.append(StreamMoved(actor, seq, None if is_last else after, float(length), length))
            played[actor] = (seq, episode + 1, 0) if is_last else (seq, episode, length + 1)
        else:
            actions, extras = policy.act([seen[actor]], ActMode.EXPLORE)
            status = (CUT if actor == "b" else OVER) if is_last else ON
            given = None if extras is None else extras[0]
            action, reward = int(actions[0]), float(rng.normal())
            events.append(
                Experience(
                    seen[actor],
                    action,
                    reward,
                    after,
                    status,
                    actor,
                    given,
                    None if extras is None else 0,
                    seq,
                )
            )
            if is_last:
                events.append(EpisodeEnded(EpisodeRecord(float(length), length, status), actor))
            played[actor] = (seq, episode + 1, 0) if is_last else (seq, episode, length + 1)
        seen[actor] = after
        if number % 50 == 20:
            events.append(EpisodeStarted("d", None, 1, after))
        if number % 50 == 30:
            events.append(StreamEnded("d"))
        if number == 100:  # a silent actor's episode is abandoned
            events.append(EpisodeStarted("a"))
            played["a"] = (*played["a"][:2], 0)
    return events


State = dict[ActorId, tuple[Any, ...]]


def held(streams: Mapping[ActorId, StreamPoint]) -> State:
    """The streams as values that can be compared."""
    return {
        actor: (
            point.seq,
            _plain(point.observation),
            point.total_reward,
            point.length,
            point.status,
            point.learns,
        )
        for actor, point in streams.items()
    }


def states_of(events: Iterable[StreamEvent]) -> Iterator[State]:
    """Where the streams stand before the first event, and behind each."""
    state: State = {}
    yield {}
    for event in events:
        actor = event.actor_id
        seq, _, reward, length, *_ = state.get(actor, (0, None, 0.0, 0))
        match event:
            case EpisodeStarted(_, _, None):
                state[actor] = seq, None, 0.0, 0, ON, True
            case EpisodeStarted():
                state[actor] = event.seq, _plain(event.observation), 0.0, 0, ON, True
            case StreamMoved(_, seq, None):
                state[actor] = seq, None, 0.0, 0, ON, True
            case StreamMoved():
                state[actor] = (
                    event.seq,
                    _plain(event.observation),
                    event.total_reward,
                    event.length,
                    ON,
                    False,
                )
            case Experience():
                after = _plain(event.next_observation) if event.status is ON else None
                reward, length = reward + event.reward, length + 1
                state[actor] = event.seq, after, reward, length, event.status, True
            case EpisodeEnded():
                state[actor] = seq, None, 0.0, 0, ON, True
            case StreamEnded():
                del state[actor]
        yield dict(state)


def _plain(seen: Any) -> Any:
    return None if seen is None else (seen.dtype.str, seen.tolist())


async def send(session: TrainingSession, events: list[StreamEvent], until: int, size: int = 7) -> None:
    """Send the events that the session's streams do not hold yet, up to a number, several together."""
    await session.barrier()
    first = list(states_of(events)).index(held(session.streams))
    for start in range(first, until, size):
        message = events[start : min(start + size, until)]
        assert await session.observe_events(message) == len(message)


async def send_and_die(order: Order) -> None:
    root = Path(order.root)
    if (root / "numbered").exists():
        run = await TrainingRun.resume(root / "numbered")
    else:
        run = await TrainingRun.create("numbered", root=root)
    session = TrainingSession(agent_for(order.agent), run, numbered=True, **order.settings)
    await session.open()
    await send(session, events_of(order.agent), order.until)
    await (session.flush() if order.flushes else session.barrier())
    die()


if __name__ == "__main__":
    anyio.run(send_and_die, msgspec.json.decode(sys.argv[1], type=Order))
