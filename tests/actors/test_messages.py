"""Messages arrive as they were sent, in bytes or in a mailbox; other bytes are refused."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.actors.messages import (
    Credit,
    Failed,
    Mailbox,
    Played,
    Ready,
    RemoteFailure,
    Stop,
    Weights,
    WorkerExited,
    decode_command,
    decode_message,
    described,
    encode_message,
)
from stoker.errors import ConfigError, UnexpectedExit
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.stats import EpisodeRecord
from stoker.types import EpisodeStatus, Experience


def played(*events: Any) -> Played:
    return Played(events, (0.1, 0.2, 0.3), 4, 5, asks=True)


def through(message: Any) -> Any:
    return decode_message(encode_message(message))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@given(
    lengths=st.lists(st.integers(1, 4), max_size=4),
    status=st.sampled_from([EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED]),
    version=st.none() | st.integers(0, 10**12),
    pixels=st.booleans(),
)
def test_what_was_played_arrives_as_it_was(
    lengths: list[int], status: EpisodeStatus, version: int | None, pixels: bool
) -> None:
    events: list[Any] = []
    for number, length in enumerate(lengths):
        events.append(EpisodeStarted("a", None if pixels else number))
        seen: Any = np.zeros((2, 3), np.uint8) if pixels else {"x": np.float32(number), "y": np.zeros(2)}
        for k in range(length):
            following = np.full((2, 3), k, np.uint8) if pixels else {"x": np.float32(k), "y": np.ones(2)}
            ends = status if k == length - 1 else EpisodeStatus.CONTINUING
            events.append(Experience(seen, k, k / 7, following, ends, "a", {"log_prob": -0.5}, version))
            seen = following
        events.append(EpisodeEnded(EpisodeRecord(1.5, length, status, {"is_success": 1.0}), "a"))
    arrived = through(played(*events))
    assert msgspec.structs.astuple(arrived)[1:] == ((0.1, 0.2, 0.3), 4, 5, True)
    assert [type(event) for event in arrived.events] == [type(event) for event in events]
    before: Any = None
    for sent, got in zip(events, arrived.events, strict=True):
        if isinstance(sent, Experience):
            for name in Experience.__struct_fields__:
                assert same(getattr(sent, name), getattr(got, name)), name
            if before is not None and before.next_observation is sent.observation:
                assert got.observation is not None
            before = sent
        else:
            assert got == sent
            before = None


def test_an_observation_is_sent_once_and_shared_where_it_arrives() -> None:
    pictures = [np.full((100, 100), k, np.uint8) for k in range(5)]
    steps = [Experience(pictures[k], 0, 0.0, pictures[k + 1], EpisodeStatus.CONTINUING, 3) for k in range(4)]
    data = encode_message(played(*steps))
    assert len(data) < 5 * 10_000 + 1_000
    arrived = decode_message(data).events  # type: ignore[union-attr]
    assert all(arrived[k].next_observation is arrived[k + 1].observation for k in range(3))
    assert [int(step.observation[0, 0]) for step in arrived] == [0, 1, 2, 3]


def test_the_other_messages() -> None:
    assert through(Ready()) == Ready()
    for command in (Credit(3), Stop()):
        assert decode_command(encode_message(command)) == command
    weights = decode_command(encode_message(Weights(7, {"w": torch.arange(6.0).view(2, 3), "epsilon": 0.5})))
    assert isinstance(weights, Weights)
    assert weights.version == 7
    assert torch.equal(weights.weights["w"], torch.arange(6.0).view(2, 3))


def test_weights_are_packed_once_and_newer_ones_anew() -> None:
    older, newer = (Weights(version, {"matrix": np.full(3, version)}) for version in (1, 2))
    assert encode_message(older) is encode_message(older)
    for weights in (older, newer, older):
        found: Any = decode_command(encode_message(weights))
        assert found.version == weights.version
        assert found.weights["matrix"].tolist() == [weights.version] * 3


def test_an_exception_arrives_as_text_with_its_traceback() -> None:
    with pytest.raises(KeyError) as raised:
        {}["x"]
    failed = through(Failed(raised.value, np.ones(2)))
    assert isinstance(failed.error, RemoteFailure)
    assert described(failed.error) == described(raised.value)
    assert described(failed.error).startswith("KeyError: 'x' (")
    assert "test_messages.py" in failed.error.__notes__[0]
    assert failed.observation.tolist() == [1.0, 1.0]


def test_an_exception_arrives_also_where_its_text_is_not_valid_unicode() -> None:
    for error, kind in (
        (RuntimeError("a file \udc80"), RemoteFailure),
        (ConfigError("a file \udc80"), ConfigError),
        (UnexpectedExit("\udc80"), UnexpectedExit),
    ):
        failed = through(Failed(error))
        assert type(failed.error) is kind
        assert "\\udc80" in str(failed.error)
        assert "\\udc80" in failed.error.__notes__[0]


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x91\x01", b"\x92\x07\x00", b"\xc1", encode_message(Credit(1))[:-1]]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    for read in (decode_command, decode_message):
        with pytest.raises(msgspec.DecodeError):
            read(data)


def test_what_cannot_be_sent_is_named() -> None:
    step = Experience({1, 2}, 0, 0.0, np.zeros(1), EpisodeStatus.CONTINUING)
    with pytest.raises(ConfigError, match="observation is a builtins.set"):
        encode_message(played(step))
    with pytest.raises(ConfigError, match=r"weights\['f'\] is a builtins.builtin_function"):
        encode_message(Weights(0, {"f": print}))
    with pytest.raises(ConfigError, match="^what it played cannot be sent.*place='threads'"):
        encode_message(played(EpisodeStarted(1 << 70, None)))


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (WorkerExited(), "its worker has ended"),
        (WorkerExited(-9), "its process has ended (killed by signal 9)"),
        (WorkerExited(3), "its process has ended (exit code 3)"),
        (WorkerExited(None, "it fell over"), "it fell over"),
    ],
    ids=["unknown", "signal", "code", "reason"],
)
def test_an_end_in_words(gone: WorkerExited, words: str) -> None:
    assert gone.in_words == words


# Mailboxes ---


@pytest.mark.anyio
async def test_messages_of_many_threads_arrive_each_threads_in_order() -> None:
    mailbox: Mailbox[tuple[int, int]] = Mailbox()
    threads = [
        threading.Thread(daemon=True, target=lambda n=n: [mailbox.post((n, k)) for k in range(500)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    with anyio.fail_after(30):
        got = [await mailbox.take() for _ in range(2000)]
    for thread in threads:
        thread.join()
    for n in range(4):
        assert [k for m, k in got if m == n] == list(range(500))
    assert mailbox.take_now() is None


@pytest.mark.anyio
async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox()
    with anyio.move_on_after(0):
        await mailbox.take()
    mailbox.post(1)
    mailbox.post(2)
    assert mailbox.take_now() == 1
    assert await mailbox.take() == 2


def test_posting_to_a_loop_that_has_ended_does_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox()
    waiting = threading.Event()

    async def wait() -> None:
        async def take() -> None:
            waiting.set()
            await mailbox.take()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    anyio.run(wait)
    assert waiting.is_set()
    mailbox.post(3)
    assert mailbox.take_now() == 3
