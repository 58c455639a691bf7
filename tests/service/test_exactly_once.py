"""Any interleaving of messages, repeats, cuts, restarts and kills leaves exactly the clients' records.

The short form runs with all the tests; the long one is marked ``faults``. STOKER_SCRIPTS sizes it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings, strategies as st
from served import CLIENT, serving

from stoker import Experience, TrainingRun
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.protocol import ProtocolError, Record, StepMessage
from stoker.service import StepService

EPISODE = 5
"""Records of an episode."""
ACTORS: Sequence[str] = ("a", "b", "c")


class Client:
    """An actor, and all records that it ever made: each says the same however often it is sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[Record] = []
        self.next = 1
        """What the server said last."""
        self.durable = 0
        self.answered: tuple[int, int, str] | None = None
        """The record whose answer came last, its action and memo."""

    def make(self) -> None:
        """One more record; its action is the answered one, if that came."""
        seq = len(self.records) + 1
        place = (seq - 1) % EPISODE
        observation = [seq / 100, float(ACTORS.index(self.name))]
        if place == 0:
            self.records.append(Record(self.name, seq, observation, start=True))
            return
        action, memo = seq % 3, None
        if self.answered is not None and self.answered[0] == seq - 1:
            _, action, memo = self.answered
        self.records.append(
            Record(
                self.name,
                seq,
                observation,
                action=action,
                memo=memo,
                reward=float(seq),
                terminated=place == EPISODE - 1,
            )
        )

    def unanswered(self, n_repeated: int = 0) -> list[Record]:
        return self.records[max(0, self.next - 1 - n_repeated) :]


def found_on_disk(root: Path, copy: Path) -> Path:
    """A copy of what a kill would leave, while the run is being written.

    What refers to something else is written behind it, and so it is copied before: checkpoints, then rows,
    then the journal. Files under temporary names may vanish.
    """
    found = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".tmp"]
    order = {"checkpoints": 0, "journal": 2}
    for path in sorted(found, key=lambda path: order.get(path.parent.name, 1)):
        (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy / path.relative_to(root))
    newer = [path for path in root.rglob("journal/*") if path not in found]
    for path in newer:  # segments that were begun meanwhile
        shutil.copyfile(path, copy / path.relative_to(root))
    return copy


class World:
    """Clients, and a service that is restarted, or killed and found as the disk holds it."""

    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self._root = root
        self._stack = stack
        self._numbers = itertools.count()
        self.clients = {name: Client(name) for name in ACTORS}
        self.service: StepService
        self.directory = root

    async def open(self, run: TrainingRun) -> None:
        self.run = run
        self.service, _ = await self._stack.enter_async_context(
            serving(run, queue_capacity=4, checkpoint_freq=20, keep_checkpoints=100)
        )

    async def restart(self, *, kill: bool) -> None:
        """Open the run again: after the end of the training before, or as the disk was amid it."""
        root = self.run.directory.parents[2]
        if kill:
            root = found_on_disk(root, self._root / f"copy-{next(self._numbers)}")
        await self._stack.aclose()
        await self.open(await TrainingRun.resume(root / "served"))
        for client in self.clients.values():
            await self.ask(client)
            assert client.durable < client.next <= len(client.records) + 1
            if not kill:
                assert client.next == 1 or self.service.table[client.name].durable == client.next - 1

    async def ask(self, client: Client) -> None:
        """Ask where an actor's stream stands."""
        try:
            client.next = (await self.service.actor(client.name)).answer.next
        except ProtocolError as problem:
            if problem.kind != "unknown-actor":
                raise
            client.next = 1

    async def send(self, clients: Sequence[Client], *, n_repeated: int = 0, is_last: bool = False) -> None:
        """Send what was not answered, and note the answer."""
        records = [record for client in clients for record in client.unanswered(n_repeated)]
        if not records:
            return
        message = StepMessage(records, "durable" if is_last else "accepted")
        answers = (await self.service.step(message, CLIENT)).actors
        for client in clients:
            if (answer := answers.get(client.name)) is not None:
                assert answer.next == len(client.records) + 1
                client.next, client.durable = answer.next, max(client.durable, answer.durable)
                if answer.action is not None and answer.memo is not None:
                    client.answered = answer.next - 1, answer.action, answer.memo

    async def cut(self, clients: Sequence[Client], n_turns: int) -> None:
        """Send, and lose the connection after that many turns of the event loop."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.send, clients)
            for _ in range(n_turns):
                await checkpoint()
            tasks.cancel_scope.cancel()

    def check(self) -> None:
        """Compare the journal with what the clients have."""
        seen: dict[str, list[Record]] = {name: [] for name in ACTORS}
        ended = dict.fromkeys(ACTORS, 0)
        for _, event in self.run.journal.read(0, self.run.journal.n_events()):
            match event:
                case EpisodeStarted(str(actor), seq=seq, observation=observation):
                    made = self.clients[actor].records[len(seen[actor])]
                    assert (made.seq, made.start) == (seq, True)
                    assert observation.tolist() == pytest.approx(made.observation)
                case Experience(actor_id=str(actor)):
                    before, made = self.clients[actor].records[len(seen[actor]) - 1 : len(seen[actor]) + 1]
                    assert (made.seq, made.action, made.reward) == (event.seq, event.action, event.reward)
                    assert event.status.is_terminal is made.terminated
                    assert event.observation.tolist() == pytest.approx(before.observation)
                    assert event.next_observation.tolist() == pytest.approx(made.observation)
                case EpisodeEnded(record, str(actor)):
                    ended[actor] += 1
                    last = seen[actor][-1]
                    assert last.terminated
                    rewards = [float(seq) for seq in range(last.seq - EPISODE + 2, last.seq + 1)]
                    assert (record.total_reward, record.length) == (sum(rewards), EPISODE - 1)
                    continue
                case _:
                    raise AssertionError(event)
            seen[actor].append(made)
        assert seen == {name: client.records for name, client in self.clients.items()}
        assert ended == {name: len(client.records) // EPISODE for name, client in self.clients.items()}


clients = st.lists(st.sampled_from(ACTORS), min_size=1, max_size=3, unique=True)
operations = st.one_of(
    st.tuples(st.just("send"), clients, st.integers(1, 4), st.integers(0, 3)),
    st.tuples(st.just("lockstep"), clients, st.integers(1, 4), st.just(0)),
    st.tuples(st.just("durable"), clients, st.integers(1, 2), st.just(0)),
    st.tuples(st.just("cut"), clients, st.integers(1, 6), st.integers(0, 6)),
    st.tuples(st.just("restart"), st.just([]), st.just(0), st.just(0)),
    st.tuples(st.just("kill"), st.just([]), st.just(0), st.just(0)),
)


async def play(script: Sequence[tuple[str, list[str], int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            world = World(Path(directory), stack)
            await world.open(await TrainingRun.create("served", root=Path(directory) / "runs"))
            for what, names, n_records, number in script:
                chosen = [world.clients[name] for name in names]
                for _ in range(n_records if what == "lockstep" else 1):
                    for client in chosen:
                        for _ in range(1 if what == "lockstep" else n_records):
                            client.make()
                    match what:
                        case "cut":
                            await world.cut(chosen, number)
                        case "restart" | "kill":
                            await world.restart(kill=what == "kill")
                        case _:
                            await world.send(chosen, n_repeated=number, is_last=what == "durable")
            for client in world.clients.values():
                await world.send([client], is_last=True)
        world.check()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_journal_holds_each_record_once_and_in_order(backend: str) -> None:
    @settings(max_examples=6, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(operations, min_size=6, max_size=14))
    def played(script: list[tuple[str, list[str], int, int]]) -> None:
        anyio.run(play, script, backend=backend)

    played()


@pytest.mark.faults
@given(st.lists(operations, min_size=10, max_size=60))
@settings(
    max_examples=int(os.environ.get("STOKER_SCRIPTS", "200")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_the_journal_holds_each_record_once_and_in_order_at_length(
    script: list[tuple[str, list[str], int, int]],
) -> None:
    anyio.run(play, script)
