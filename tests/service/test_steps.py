"""Messages on a real training: each record once, answers as before, restarts, cancellations and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from served import CLIENT, Clock, ledger_of, record, send, serving, start

from stoker import SessionFailed, TrainingRun
from stoker.nested import is_same
from stoker.protocol import (
    EpisodeMessage,
    ProtocolError,
    Record,
    StepMessage,
    decode_step,
    encode_json,
    encode_msgpack,
)
from stoker.service import Holder, Limits

pytestmark = pytest.mark.anyio


async def refused(kind: str, *call: Any, **options: Any) -> ProtocolError:
    """The problem that a message gets, which must be of this kind."""
    with pytest.raises(ProtocolError) as found:
        await send(*call, **options)
    assert found.value.kind == kind
    return found.value


@pytest.mark.parametrize("kind", ["dqn", "ppo"])
async def test_actors_play_and_each_record_is_in_the_journal_once(tmp_path: Path, kind: str) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run, kind) as (service, session):
        numbers = {"a": 0, "b": 0}
        for _ in range(3):
            for actor in numbers:
                numbers[actor] = seq = numbers[actor] + 1
                answer = await send(service, start(actor, seq))
                assert (answer.next, answer.action in (0, 1, 2)) == (seq + 1, True)
            for length in range(1, 9):
                records = [
                    record(actor, seq := seq_before + 1, 0.1 * length, terminated=length == 8)
                    for actor, seq_before in numbers.items()
                ]
                numbers = {each.actor: each.seq for each in records}
                answers = (await service.step(StepMessage(records), CLIENT)).actors
                assert {a: answer.next - 1 for a, answer in answers.items()} == numbers
                assert all((answer.action is None) is (length == 8) for answer in answers.values())
        answer = await send(service, record("a", 27, 0.8, terminated=True), ack="durable")
        assert (answer.next, answer.durable, answer.action) == (28, 27, None)
        assert session.accepted_steps == 48
    assert session.total_steps == 48
    assert session.total_episodes == 6
    assert session.opt_steps > 0
    episode = [*range(1, 10), "ended", *range(10, 19), "ended", *range(19, 28), "ended"]
    assert ledger_of(run) == {"a": episode, "b": episode}


async def test_repeats_are_answered_as_before() -> None:
    async with serving(max_steps=100) as (service, session):
        first = await send(service, start("a", 1))
        assert await send(service, start("a", 1)) == first
        second = await send(service, record("a", 2, action=first.action, memo=first.memo))
        again = await send(service, record("a", 2, action=first.action, memo=first.memo))
        assert msgspec.json.encode(again) == msgspec.json.encode(second)
        older = await send(service, start("a", 1))
        assert (older.next, older.action, older.memo) == (3, None, None)
        ring = await send(service, start("a", 1), record("a", 2), record("a", 3))
        assert ring.next == 4
        assert ring.action is not None
        assert service.counts.duplicates == 5
        assert (service.n_accepted, session.accepted_steps) == (3, 2)


async def test_actors_of_one_message_are_answered_as_each_by_itself() -> None:
    async with serving() as (together, one), serving() as (apart, other):
        begun = [start(actor, 1, place / 4) for place, actor in enumerate("abcd")]
        answers = (await together.step(StepMessage(begun), CLIENT)).actors
        assert answers == {each.actor: await send(apart, each) for each in begun}
        fields: list[dict[str, Any]] = [{}, {"act": False}, {"mode": "exploit"}, {"truncated": True}]
        moved = [
            record(actor, 2, 0.125, action=answers[actor].action, memo=answers[actor].memo, **each)
            for actor, each in zip("abcd", fields, strict=True)
        ]
        answers = (await together.step(StepMessage([begun[0], *moved]), CLIENT)).actors
        assert answers == {each.actor: await send(apart, each) for each in moved}
        for actor in "abcd":
            assert is_same(together.table[actor].state.observation, apart.table[actor].state.observation)
        await one.flush()
        await other.flush()
        assert one.total_steps == other.total_steps == 4


async def test_a_refused_message_says_where_its_streams_stand_and_takes_nothing() -> None:
    async with serving() as (service, session):
        await send(service, start("a", 1))
        problem = await refused("gap", service, start("new", 1), record("a", 2), record("a", 4, action=0))
        assert problem.path == "steps[2].seq"
        assert {name: answer.next for name, answer in (problem.actors or {}).items()} == {"new": 1, "a": 2}
        assert list(service.table) == ["a"], "an actor whose only message was refused is unknown"
        problem = await refused("invalid", service, Record("a", 2, [1.0], reward=1.0))
        assert problem.path is not None
        assert problem.path.startswith("steps[0].observation")
        assert (await send(service, record("a", 2))).next == 3
        assert service.counts.refused == {"gap": 1, "invalid": 1}
        assert session.accepted_steps == 1


async def test_ppo_refuses_what_its_policy_did_not_choose() -> None:
    async with serving(kind="ppo") as (service, _):
        first = await send(service, start("a", 1))
        other = (first.action + 1) % 3
        problem = await refused("off-policy", service, record("a", 2, action=other))
        assert problem.path == "steps[0].memo"
        assert (await send(service, record("a", 2, action=first.action))).next == 3


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize("kind", ["ppo", "ppo-box"])
async def test_the_policys_action_is_known_again_whatever_comes_back_of_it(
    form: Literal["json", "msgpack"], kind: str
) -> None:
    encode = encode_json if form == "json" else encode_msgpack
    async with serving(kind=kind) as (service, _):
        answer = await send(service, start("a", 1))
        fields: list[tuple[str, ...]] = [(), ("action",), ("memo",), ("action", "memo")]
        for restarted, sent in [*((False, each) for each in fields), (True, ("memo",)), (True, fields[-1])]:
            if restarted:
                service.table["a"].answered = None  # as a restart leaves it
            back = {name: getattr(answer, name) for name in sent}
            message = decode_step(encode(StepMessage([record("a", answer.next, **back)])), form)
            answer = (await service.step(message, CLIENT)).actors["a"]
            assert answer.action is not None
        service.table["a"].answered = None
        await refused("off-policy", service, record("a", answer.next, action=answer.action))
        await refused("invalid", service, record("a", answer.next))


@pytest.mark.parametrize("kind", ["dqn", "ppo"])
async def test_a_restarted_service_goes_on_where_the_journal_ends(tmp_path: Path, kind: str) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run, kind) as (service, _):
        await send(service, start("a", 1, 0.1))
        before = await send(service, record("a", 2, 0.2))
        await send(
            service,
            start("done", 1),
            record("done", 2, action=before.action, memo=before.memo, terminated=True),
        )
        await send(service, start("shown", 1, learn=False, mode="exploit"))
    resumed = await TrainingRun.resume(tmp_path / "served")
    async with serving(resumed, kind) as (service, session):
        state = await service.actor("a")
        assert (state.answer.next, state.answer.durable, state.answer.action) == (3, 2, None)
        assert state.episode is not None
        assert (state.episode.length, state.episode.total_reward) == (1, 1.0)
        assert (await service.actor("done")).episode is None
        again = await send(service, record("a", 2, 0.2))
        assert again.action is not None, "the last observation is known, so there is an action"
        await refused("different", service, record("a", 2, 0.3))
        await send(service, record("a", 3, 0.3, 2.0, action=before.action, memo=before.memo))
        await send(service, record("a", 4, 0.4, terminated=True))
        await send(service, start("done", 3))
        await send(service, record("shown", 2, 0.5, mode="exploit", truncated=True))
        await session.flush()
        assert session.total_episodes == 2
        assert session.stats_summary()["episode_reward"] == pytest.approx(2.5)
        assert session.eval_report(10).n_episodes == 1
    ledger = ledger_of(resumed)
    assert ledger["a"] == [1, 2, 3, 4, "ended"]
    assert ledger["done"] == [1, 2, "ended", 3]
    assert ledger["shown"] == [1, 2]


async def test_the_end_of_training_cuts_a_message_and_later_ones_are_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run, max_steps=3) as (service, session):
        message = [start("a", 1), *(record("a", seq, action=0) for seq in range(2, 8))]
        answer = await service.step(StepMessage(message), CLIENT)
        assert (answer.training, answer.actors["a"].next) == ("done", 5)
        problem = await refused("training-done", service, record("a", 5, action=0))
        assert (problem.actors or {})["a"].next == 5
        again = await send(service, record("a", 4, action=0), ack="durable")
        assert (again.next, again.durable) == (5, 4), "repeats are answered, so that a client can end"
        await refused("training-done", service, start("b", 1))
    assert session.total_steps == 3
    assert ledger_of(run) == {"a": [1, 2, 3, 4]}


@pytest.mark.parametrize("act", [True, False])
async def test_after_a_failure_messages_get_its_cause(act: bool) -> None:
    with pytest.raises(SessionFailed):
        async with serving() as (service, session):
            await send(service, start("a", 1))
            session.fail("test", OSError("the disk is gone"))
            with anyio.CancelScope(shield=True):  # the failure ends this block
                for _ in range(2):
                    problem = await refused("training-failed", service, record("a", 2, action=0, act=act))
                    assert "the disk is gone" in problem.detail
                await send(service, start("a", 1, act=False))
                await refused("training-failed", service, record("a", 2, action=0, act=act))


async def test_without_a_run_nothing_becomes_durable() -> None:
    async with serving() as (service, _):
        problem = await refused("invalid", service, start("a", 1), ack="durable")
        assert problem.path == "ack"
        assert (await send(service, start("a", 1))).durable == 0


async def test_a_full_queue_makes_messages_wait_and_then_refuses_them_whole(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    limits = Limits(max_wait_s=0.002)
    async with serving(run, limits=limits, queue_capacity=1) as (service, session):
        await send(service, start("a", 1))
        await session.barrier()
        busy: ProtocolError | None = None
        seq = 1
        with anyio.fail_after(30):
            while busy is None:
                block = [record("a", each, action=0) for each in range(seq + 1, seq + 65)]
                try:
                    answer = await send(service, *block)
                    seq = answer.next - 1
                except ProtocolError as problem:
                    busy = problem
        assert (busy.kind, busy.retry_after) == ("busy", 1.0)
        assert (busy.actors or {})["a"].next == seq + 1
    assert ledger_of(run) == {"a": [*range(1, seq + 1)]}


async def test_messages_of_one_actor_are_taken_in_the_order_of_the_calls() -> None:
    async with serving() as (service, _):
        answers: list[int] = []

        async def pipelined(*records: Record) -> None:
            answers.append((await send(service, *records)).next)

        turn = await hold(service, "a")
        async with anyio.create_task_group() as tasks:
            for message in (
                [start("a", 1)],
                [record("a", 2)],
                [record("a", 3), start("b", 1)],
                [record("b", 2)],
            ):
                tasks.start_soon(pipelined, *message)
                await wait_all_tasks_blocked()
            assert answers == []
            turn.end()
        assert answers == [2, 3, 2, 3]


async def hold(service: Any, actor: str) -> Any:
    """A message of this actor that is in flight until its turn is ended."""
    from stoker.service.turns import queue_up

    return queue_up(service.table.of([actor], CLIENT).values())


async def test_a_cancelled_message_is_taken_or_not_and_the_stream_says_which(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run, queue_capacity=8) as (service, session):
        seq = 0
        with anyio.fail_after(60):
            for k in range(300):
                batch = [
                    start("a", s) if s == 1 else record("a", s, action=0)
                    for s in range(seq + 1, seq + 2 + k % 12)
                ]
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(swallowing, service, batch)
                    for _ in range(k % 5):
                        await checkpoint()
                    tasks.cancel_scope.cancel()
                seq = service.table["a"].accepted if "a" in service.table else 0
                assert session.accepted_steps == max(0, seq - 1)
        assert seq > 0
    assert ledger_of(run).get("a", []) == [*range(1, seq + 1)]


async def swallowing(service: Any, batch: list[Record]) -> None:
    await send(service, *batch)


async def test_an_ended_actor_begins_again_at_one(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run) as (service, _):
        await send(service, start("a", 1), record("a", 2, action=0))
        await service.end("a", CLIENT)
        for call in (service.actor("a"), service.end("a", CLIENT)):
            with pytest.raises(ProtocolError) as unknown:
                await call
            assert unknown.value.kind == "unknown-actor"
        await refused("gap", service, record("a", 3, action=0))
        assert (await send(service, start("a", 1))).next == 2
    assert ledger_of(run) == {"a": [1, 2, "gone", 1]}
    async with serving(await TrainingRun.resume(tmp_path / "served")) as (service, _):
        assert (await service.actor("a")).answer.next == 2


async def test_only_so_many_actors_have_numbers() -> None:
    async with serving(limits=Limits(actors=2)) as (service, _):
        await send(service, start("a", 1), start("b", 1))
        await refused("too-many-actors", service, start("c", 1))
        await refused("too-many-actors", service, record("a", 2), start("c", 1))
        await service.end("a", CLIENT)
        assert (await send(service, start("c", 1))).next == 2
        assert service.counts.actors() == {"known": 2, "in_flight": 0}


async def test_a_token_is_for_actors_of_its_prefix() -> None:
    async with serving() as (service, _):
        guest = Holder("guest", prefix="guest-")
        assert (await send(service, start("guest-1", 1), holder=guest)).next == 2
        await refused("forbidden", service, start("npc", 1), holder=guest)
        await refused("forbidden", service, record("guest-1", 2), start("npc", 1), holder=guest)
        await refused("forbidden", service, start("episode:x", 1))
        assert list(service.table) == ["guest-1"]


async def test_a_connection_that_takes_an_actor_over_fences_the_one_before() -> None:
    async with serving() as (service, _):
        fenced: list[str] = []
        old = Holder("old", is_connection=True, on_fenced=fenced.append)
        await send(service, start("a", 1), holder=old)
        await refused("held", service, record("a", 2), holder=Holder("new", is_connection=True))
        await refused("held", service, record("a", 2))
        new = Holder("new", is_connection=True, take_over=["a"])
        assert (await service.take_over(new, ["a", "unknown"]))["a"].next == 2
        assert fenced == ["a"]
        assert (await service.actor("a")).epoch == 1
        await refused("fenced", service, record("a", 2), holder=old)
        assert (await send(service, record("a", 2), holder=new)).next == 3
        await refused("held", service, record("a", 3))
        new.release()
        assert (await send(service, record("a", 3))).next == 4
        await refused("fenced", service, record("a", 4), holder=old)


@pytest.mark.parametrize("is_connection", [True, False])
async def test_who_takes_an_actor_over_hears_of_the_messages_that_are_in_flight(
    tmp_path: Path, is_connection: bool
) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run, queue_capacity=1) as (service, _):
        old = Holder("old", is_connection=is_connection)
        new = Holder("new", is_connection=True, take_over=["a"])
        await send(service, start("a", 1), holder=old)
        taken = 1
        refusals: list[str] = []

        async def play(first: int) -> None:
            block = [record("a", seq, action=0, act=False) for seq in range(first, first + 64)]
            try:
                await send(service, *block, holder=old)
            except ProtocolError as problem:
                refusals.append(problem.kind)

        async with anyio.create_task_group() as tasks:
            for first in range(2, 2 + 64 * 20, 64):
                tasks.start_soon(play, first)
                await checkpoint()
                if service.table["a"].n_turns > 2:
                    break
            taken = (await service.take_over(new, ["a"]))["a"].next
            assert service.table["a"].accepted == taken - 1
        assert set(refusals) == {"fenced" if is_connection else "held"}, (
            "messages behind the one that was past its checks"
        )
        assert (await send(service, record("a", taken, action=0), holder=new)).next == taken + 1
    assert ledger_of(run)["a"] == [*range(1, taken + 1)]


async def test_a_connection_that_is_gone_holds_nothing_though_its_message_is_still_in_flight() -> None:
    async with serving() as (service, _):
        gone = Holder("gone", is_connection=True)
        turn = await hold(service, "a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: send(service, start("a", 1), holder=gone))
            await wait_all_tasks_blocked()
            gone.release()
            turn.end()
        assert (await send(service, record("a", 2))).next == 3


async def test_a_fixed_policy_knows_only_the_actors_that_are_there() -> None:
    clock = Clock()
    async with serving(learns=False, clock=clock, limits=Limits(actors=2, actor_timeout_s=60)) as (
        service,
        _,
    ):
        answer = await send(service, record("a", 70, action=0), ack="durable")
        assert (answer.next, answer.durable, answer.action is None) == (71, 70, False)
        assert service.training == "off"
        await send(service, start("b", 1), record("b", 2, action=0, terminated=True))
        await refused("too-many-actors", service, start("c", 1))
        clock.now += 61
        assert await service.abandon_silent() == 2
        assert (await send(service, start("c", 1))).next == 2


async def test_the_episode_of_a_silent_actor_is_abandoned_and_its_numbers_stay(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    clock = Clock()
    async with serving(run, clock=clock, limits=Limits(actor_timeout_s=60)) as (service, _):
        await send(service, start("a", 1), start("b", 1), start("c", 1, learn=False))
        clock.now += 59
        await send(service, record("b", 2, action=0))
        assert await service.abandon_silent() == 0
        clock.now += 1
        assert await service.abandon_silent() == 2
        assert await send(service, start("a", 1)) is not None
        problem = await refused("no-episode", service, record("a", 2, action=0))
        assert (problem.actors or {})["a"].next == 2
        await refused("no-episode", service, record("c", 2, action=0))
        assert (await send(service, start("a", 2))).next == 3
        assert (await send(service, record("b", 3, action=0))).next == 4
    ledger = ledger_of(run)
    assert ledger["a"] == [1, "abandoned", 2]
    assert ledger["b"] == [1, 2, 3]


def episode(name: str, n_steps: int = 3, **fields: Any) -> EpisodeMessage:
    options: dict[str, Any] = {"terminated": True, **fields}
    return EpisodeMessage(
        name,
        observations=[[0.1 * k, 0.0] for k in range(n_steps + 1)],
        actions=[k % 3 for k in range(n_steps)],
        rewards=[1.0] * n_steps,
        **options,
    )


async def test_a_whole_episode_is_taken_once_for_each_id(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run) as (service, session):
        answer = await service.episode(episode("x", ack="durable"), CLIENT)
        assert (answer.length, answer.repeated, answer.durable) == (3, False, True)
        assert (await service.episode(episode("x"), CLIENT)).repeated
        for message, path in [
            (episode("y", terminated=False), "terminated"),
            (msgspec.structs.replace(episode("y"), rewards=[1.0]), "rewards"),
            (msgspec.structs.replace(episode("y"), actions=[0, 7, 0]), "actions[1]"),
            (
                msgspec.structs.replace(episode("y"), observations=[[0, 0], [0], [0, 0], [0, 0]]),
                "observations[1]",
            ),
        ]:
            with pytest.raises(ProtocolError) as refusal:
                await service.episode(message, CLIENT)
            assert refusal.value.path is not None
            assert refusal.value.path.startswith(path)
        assert "episode:y" not in service.table
        assert session.accepted_steps == 3
    async with serving(await TrainingRun.resume(tmp_path / "served")) as (service, session):
        answer = await service.episode(episode("x"), CLIENT)
        assert (answer.length, answer.repeated) == (3, True)
        assert session.total_episodes == 1


async def test_episodes_beyond_those_that_are_kept_are_forgotten_oldest_first(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    async with serving(run, opt_interval=0) as (service, _):
        for k in range(1002):
            await service.episode(episode(f"e{k}", 1), CLIENT)
        assert len(service.table.episodes) == 1000
        assert not (await service.episode(episode("e0", 1), CLIENT)).repeated
        assert (await service.episode(episode("e9", 1), CLIENT)).repeated
        assert service.table.n_actors == 0
