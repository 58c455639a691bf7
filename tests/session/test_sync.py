"""The session of a plain loop: exactness over batches and threads, errors in the caller, saving."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import torch

from stoker import (
    DQN,
    ActMode,
    ConfigError,
    DQNConfig,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    ExperienceBatch,
    InvalidExperience,
    SessionClosed,
    SessionError,
    SessionFailed,
    SyncTrainingSession,
    TrainingRun,
)
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.queues import BatchQueue
from stoker.session.events import Event
from stoker.session.sync import Handover
from stoker.testing import ChainEnv, FakeAgent
from stoker.threads import call_soon_here

TERMINATED = EpisodeStatus.TERMINATED
HOUR_S = 3600.0


def step(k: Any, actor_id: int | str = 0) -> Experience:
    return Experience(k, 0, 1.0, k, EpisodeStatus.CONTINUING, actor_id)


def new_run(root: Path) -> TrainingRun:
    """A run without an event loop of one's own."""

    async def create() -> TrainingRun:
        return await TrainingRun.create("sync", root=root)

    return anyio.run(create)


def rows(run: TrainingRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]


def test_a_plain_loop_trains_dqn_into_a_complete_run(tmp_path: Path) -> None:
    env = ChainEnv(3)
    config = DQNConfig(hidden_sizes=(8,), batch_size=8, learning_starts=16, epsilon_decay_steps=200)
    agent = DQN(env.observation_space, env.action_space, config, seed=1)
    run = new_run(tmp_path)
    n_episodes = 0
    with SyncTrainingSession(agent, run, max_steps=500, checkpoint_freq=200) as session:
        while not session.is_done:
            session.on_episode_start()
            observation, _ = env.reset(seed=n_episodes)
            total_reward, steps, status = 0.0, 0, EpisodeStatus.CONTINUING
            while not status.is_done:
                action = session.act(observation)
                following, reward, terminated, truncated, _ = env.step(action)
                status = EpisodeStatus.of(terminated, truncated)
                session.observe(Experience(observation, action, reward, following, status))
                observation, total_reward, steps = following, total_reward + reward, steps + 1
            session.on_episode(total_reward, steps, status)
            n_episodes += 1
        session.flush()
        assert session.stats_summary()["episode_length"] > 0
    assert session.total_steps == agent.total_steps == 500
    assert agent.opt_steps > 400
    assert run.checkpoint_steps() == [200, 400, 500]
    written = rows(run)
    assert [row["episode"] for row in written] == list(range(1, session.total_episodes + 1))
    assert n_episodes - 1 <= session.total_episodes <= n_episodes, "the last may be cut by the limit"
    assert sum(row["length"] for row in written) <= 500
    assert {"epsilon", "loss_mean"} <= set(written[-1]["extras"])
    state = torch.load(run.latest_checkpoint_path, weights_only=True)
    assert state["agent"]["total_steps"] == 500
    assert json.loads((run.directory / "metadata.json").read_text())["total_steps"] == 500


@pytest.mark.parametrize("batch_size", [1, 7, 64, 10_000])
def test_all_is_consumed_once_and_in_order_whatever_the_batch(tmp_path: Path, batch_size: int) -> None:
    agent, run = FakeAgent(), new_run(tmp_path)
    with SyncTrainingSession(
        agent, run, batch_size=batch_size, max_delay_s=HOUR_S, queue_capacity=16
    ) as session:
        for k in range(1000):
            session.observe(step(k))
            if k % 10 == 9:
                session.on_episode(float(k), 10, TERMINATED)
    assert [experience.observation for experience in agent.experiences] == list(range(1000))
    assert [row["total_steps"] for row in rows(run)] == list(range(10, 1001, 10))
    assert session.total_episodes == 100


def test_events_wait_for_their_batch_or_a_flush() -> None:
    agent = FakeAgent()
    with SyncTrainingSession(agent, batch_size=10, max_delay_s=HOUR_S) as session:
        for k in range(9):
            session.observe(step(k))
        assert agent.total_steps == 0, "one hop for ten, not one for each"
        session.flush()
        assert session.total_steps == agent.total_steps == 9
        session.observe_many([step(k) for k in range(9, 25)])
        session.flush()
        assert agent.total_steps == 25


def test_each_row_of_a_batch_counts_towards_the_next_hand_over() -> None:
    observed = threading.Event()

    class Telling(FakeAgent):
        def observe(self, experiences: Sequence[Experience]) -> None:
            super().observe(experiences)
            observed.set()

    agent, over = Telling(), np.zeros(4, bool)
    with SyncTrainingSession(agent, batch_size=10, max_delay_s=HOUR_S) as session:
        for k in range(3):
            assert agent.total_steps == 0, "fewer than ten"
            numbers = np.arange(4 * k, 4 * k + 4)
            session.observe_batch(
                ExperienceBatch(numbers, np.zeros(4, int), numbers, numbers, over, over, (0, 1, 2, 3))
            )
        assert observed.wait(30.0), "twelve rows are not three events"
        for k in range(12, 21):
            session.observe(step(k))
        session.flush()
    assert [int(experience.reward) for experience in agent.experiences[:12]] == list(range(12))
    assert agent.total_steps == 21


def test_an_action_for_scoring_does_not_take_the_place_of_the_exploring_one() -> None:
    agent = FakeAgent(policy_extras=True)
    agent.needs_policy_extras = True
    with SyncTrainingSession(agent) as session:
        session.act(1)
        session.act(2, ActMode.EXPLOIT)
        session.observe(step(1))
    assert [experience.policy_extras for experience in agent.experiences] == [1]


@pytest.mark.anyio
async def test_what_was_taken_for_the_queue_goes_in_though_the_task_is_cancelled() -> None:
    queue: BatchQueue[Event] = BatchQueue(1)
    handover = Handover(queue, 0, call_soon_here())
    handover.extend([step(k) for k in range(3)])
    taken: list[Event] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()
            tasks.start_soon(run_within, handover, scope)
            threading.Thread(target=handover.wait, daemon=True).start()
            while not queue.n_waiting:
                await anyio.lowlevel.checkpoint()
            scope.cancel()
            while len(taken) < 3:
                taken += await queue.take()
    assert [event.observation for event in taken if isinstance(event, Experience)] == [0, 1, 2]


async def run_within(handover: Handover, scope: anyio.CancelScope) -> None:
    with scope:
        await handover.run()


def test_without_a_delay_every_event_is_handed_over_at_once() -> None:
    agent = FakeAgent()
    observed = threading.Event()
    original = agent.observe

    class Telling(FakeAgent):
        def observe(self, experiences: Sequence[Experience]) -> None:
            original(experiences)
            observed.set()

    with SyncTrainingSession(Telling(), max_delay_s=0.0) as session:
        session.observe(step(0))
        assert observed.wait(20)


def test_several_threads_each_under_an_id_of_its_own(tmp_path: Path) -> None:
    agent, run = FakeAgent(policy_extras=True), new_run(tmp_path)
    errors: list[BaseException] = []

    def play(actor_id: int) -> None:
        try:
            for k in range(300):
                session.act((actor_id, k), actor_id=actor_id)
                session.observe(step((actor_id, k), actor_id))
                if k % 100 == 99:
                    session.on_episode(float(actor_id), 100, TERMINATED, actor_id=actor_id)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    with SyncTrainingSession(agent, run, queue_capacity=8) as session:
        threads = [threading.Thread(daemon=True, target=play, args=(actor_id,)) for actor_id in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    for actor_id in range(6):
        mine = [experience for experience in agent.experiences if experience.actor_id == actor_id]
        assert [experience.observation for experience in mine] == [(actor_id, k) for k in range(300)]
        assert all(experience.policy_extras == experience.observation for experience in mine)
    assert [row["episode"] for row in rows(run)] == list(range(1, 19))
    assert session.total_steps == 1800


def test_max_steps_is_exact_for_racing_threads() -> None:
    agent = FakeAgent()

    def play(actor_id: int) -> None:
        while not session.is_done:
            session.observe(step(0, actor_id))

    with SyncTrainingSession(agent, max_steps=777) as session:
        threads = [threading.Thread(daemon=True, target=play, args=(actor_id,)) for actor_id in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert agent.total_steps == session.total_steps == 777


def test_flush_checkpoint_best_and_report(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with SyncTrainingSession(FakeAgent(), run, max_delay_s=HOUR_S) as session:
        session.observe(step(0))
        session.on_episode(1.0, 1, TERMINATED, {"x": 2.0}, actor_id="a")
        session.flush()
        assert rows(run)[0]["extras"] == {"x": 2.0, "seen": 1.0}
        pinned = session.snapshot()
        session.observe_many([step(1), step(2)])
        session.checkpoint()
        assert run.checkpoint_steps() == [3]
        session.on_eval_episode(EpisodeRecord(5.0, 3, TERMINATED), pinned)
        assert session.maybe_save_best(5.0, pinned)
        assert not session.maybe_save_best(5.0)
        session.flush()
        assert session.eval_report(10).stats["episode_reward"] == 5.0
        assert session.stats_summary("a") == {"episode_reward": 1.0, "episode_length": 1.0}
        assert session.run is run
    best = torch.load(run.best_checkpoint_path, weights_only=True)
    assert best["best"] == {"value": 5.0, "total_steps": 1}
    assert session.steps_per_sec > 0


def test_metrics_and_extra_optimization_steps_of_a_plain_loop(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with SyncTrainingSession(FakeAgent(), run, max_delay_s=HOUR_S, record_freq=3) as session:
        session.observe_many([step(0), step(1)])
        session.store({"mine/x": 1.0})
        session.store({"mine/x": 3.0})
        session.record({"mine/y": 7}, total_steps=1)  # of a step that only this call hands over
        session.observe(step(2))
        session.barrier()
        assert session.total_steps == 3
        done = session.opt_steps
        assert session.optimize(5) == 5
        assert session.flush().opt_steps == session.opt_steps == done + 5
    records = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    own = [
        (r["total_steps"], k, v) for r in records for k, v in r["metrics"].items() if k.startswith("mine/")
    ]
    assert own == [(1, "mine/y", 7), (3, "mine/x", 2.0)]


def test_bad_input_is_refused_and_the_session_goes_on() -> None:
    agent = FakeAgent()
    with SyncTrainingSession(agent) as session:
        nonsense: Any = "step"
        for call in (
            lambda: session.observe(nonsense),
            lambda: session.observe_many([step(0), nonsense]),
            lambda: session.on_episode(float("nan"), 1, TERMINATED),
            lambda: session.act(0.0, nonsense),
            lambda: session.maybe_save_best(float("inf")),
        ):
            with pytest.raises(InvalidExperience):
                call()
        with pytest.raises(ConfigError, match="no run"):
            session.checkpoint()
        session.observe(step(1))
    assert [experience.observation for experience in agent.experiences] == [1]
    for settings in ({"batch_size": 0}, {"max_step": 1}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            SyncTrainingSession(agent, **settings)


def test_an_agent_that_dies_is_raised_in_the_loop_and_at_the_exit(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    in_loop: list[BaseException] = []

    def loop() -> None:
        with SyncTrainingSession(FakeAgent(fail_at=100), run, batch_size=8) as session:
            session.on_episode(1.0, 1, TERMINATED)
            try:
                while True:
                    session.observe(step(0))
            except SessionFailed as failure:
                in_loop.append(failure)
            assert session.is_done

    with pytest.raises(SessionFailed, match="the agent failed: RuntimeError: failed at") as caught:
        loop()
    assert len(in_loop) == 1
    assert isinstance(in_loop[0].__cause__, RuntimeError)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert run.checkpoint_steps() == []
    assert len(rows(run)) == 1


def test_a_policy_that_raises_does_so_in_the_caller() -> None:
    class Broken(FakeAgent):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            raise ArithmeticError("no action")

    with SyncTrainingSession(Broken()) as session:
        for _ in range(2):  # the second call is not taken for a conflict with the first
            with pytest.raises(ArithmeticError, match="no action"):
                session.act(0.0)
        session.observe(step(0))
    assert session.total_steps == 1


def test_a_policy_that_gives_too_few_actions_is_a_config_error_in_the_caller() -> None:
    class Short(FakeAgent):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            return [], None

    with SyncTrainingSession(Short()) as session:
        for call in (lambda: session.act(0.0), lambda: session.decide(0.0)):
            with pytest.raises(ConfigError, match="answered 1 observations with 0 actions"):
                call()


def test_a_body_that_raises_still_gets_everything_saved(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    def body() -> None:
        with SyncTrainingSession(FakeAgent(), run, max_delay_s=HOUR_S) as session:
            session.observe_many([step(k) for k in range(5)])
            session.on_episode(1.0, 5, TERMINATED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert run.checkpoint_steps() == [5]
    assert len(rows(run)) == 1


def test_stop_ends_it() -> None:
    with SyncTrainingSession(FakeAgent()) as session:
        session.observe(step(0))
        session.stop()
        assert session.is_done
        session.observe(step(1))
    assert session.total_steps == 1


def test_before_entering_and_after_leaving() -> None:
    session = SyncTrainingSession(FakeAgent())
    calls = [
        lambda: session.act(0.0),
        lambda: session.observe(step(0)),
        lambda: session.observe_many([step(0)]),
        session.on_episode_start,
        lambda: session.on_episode(1.0, 1, TERMINATED),
        session.snapshot,
        lambda: session.on_eval_episode(EpisodeRecord(1.0, 1, TERMINATED)),
        lambda: session.maybe_save_best(1.0),
        session.flush,
        session.barrier,
        lambda: session.optimize(1),
        lambda: session.record({"x": 1.0}),
        session.checkpoint,
        session.stop,
    ]
    for call in calls:
        with pytest.raises(SessionClosed, match="has not been entered"):
            call()
    with session:
        session.observe(step(0))
    for call in calls:
        with pytest.raises(SessionClosed, match="has been left"):
            call()
    assert session.total_steps == 1
    assert isinstance(session.agent, FakeAgent)
    with pytest.raises(SessionError, match="opened once"), session:
        pass


def test_a_run_of_another_agent_is_refused_at_the_door(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with SyncTrainingSession(FakeAgent(), run) as session:
        session.observe(step(0))

    class Other(FakeAgent):
        pass

    with (
        pytest.raises(ConfigError, match="trained by the agent FakeAgent, this is Other"),
        SyncTrainingSession(Other(), run),
    ):
        pass


def test_events_of_several_kinds_go_in_together_up_to_the_limit() -> None:
    agent = FakeAgent(action=1)
    with SyncTrainingSession(agent, max_steps=2, batch_size=2) as session:
        assert [one.action for one in session.decide_many([0, 1], ["a", "b"])] == [1, 1]
        assert session.decide_many([], []) == []
        ended = EpisodeEnded(EpisodeRecord(1.0, 1, TERMINATED), "a")
        events = [EpisodeStarted("a"), step(0, "a"), ended, step(1, "a"), step(2, "a"), ended]
        with pytest.raises(InvalidExperience, match="event 1 of 2"):
            session.observe_events([step(0, "a"), "no event"])  # pyright: ignore[reportArgumentType]
        assert session.observe_events(events) == 4
        session.flush()
        assert [experience.observation for experience in agent.experiences] == [0, 1]
        assert (session.total_steps, session.total_episodes) == (2, 1)
        assert session.is_done
        assert session.readings().refused_steps == 1
