"""What the training decides about a worker, without Ray: batches, losses and the next process."""

from __future__ import annotations

import threading

import msgspec
import pytest

import stoker.actors.messages as messages
from stoker.actors import Assignment, WorkerExited, encode_message
from stoker.actors.messages import Played, Weights
from stoker.distributed.link import RayLink
from stoker.distributed.parcels import Batch, Ended, Hello
from stoker.distributed.versions import Versions
from stoker.distributed.workers import Incarnation, RayWorker
from stoker.errors import ConfigError
from stoker.types import EpisodeStatus, Experience

HELLO = Hello(Versions.here(), "id", "10.0.0.7", 1, "", "")


def made_worker() -> RayWorker:
    return RayWorker(3, threading.Lock(), lambda worker: None)


def started(worker: RayWorker) -> Incarnation:
    worker.n_incarnations += 1
    worker.now = incarnation = Incarnation(worker.n_incarnations, None, 0.0)
    incarnation.hello = HELLO
    worker.take_delivery(incarnation, with_new=True)
    return incarnation


def wanting(worker: RayWorker, actor_id: int) -> RayLink:
    link = RayLink(Assignment(actor_id=actor_id, seed=None, episode=0), b"", worker)
    worker.add(link)
    return link


def played(n_steps: int) -> bytes:
    steps = tuple(Experience(0, 0, 0.0, 0, EpisodeStatus.CONTINUING) for _ in range(n_steps))
    return encode_message(Played(steps, (), 0, 0, asks=False))


def posted(link: RayLink) -> list[object]:
    found: list[object] = []
    while (message := link.messages.take_now()) is not None:
        found.append(message)
    return found


def test_a_batch_of_a_process_that_was_given_up_is_dropped_and_counted() -> None:
    worker = made_worker()
    link = wanting(worker, 0)
    first = started(worker)
    assert worker.accept(first, Batch(0, ((0, played(5)),))) == 5
    worker.lose(first, "it was killed", 1.0, may_give_up=True)
    assert worker.accept(first, Batch(1, ((0, played(7)),))) == 0
    status = worker.status(1.0)
    assert (status.steps, status.late_batches, status.state) == (5, 1, "waiting")
    assert posted(link)[1:] == [WorkerExited(why="it was killed", is_lost=True)]


def test_a_batch_out_of_order_is_refused() -> None:
    worker = made_worker()
    wanting(worker, 0)
    first = started(worker)
    with pytest.raises(msgspec.DecodeError, match="batch 1 came where 0 was due"):
        worker.accept(first, Batch(1, ((0, played(1)),)))


def test_what_may_be_in_flight_is_the_credit_that_was_sent() -> None:
    worker = made_worker()
    link = wanting(worker, 0)
    first = started(worker)
    assert first.most_in_flight == 64
    worker.accept(first, Batch(0, ((0, played(10)),)))
    link.send(messages.Credit(10))
    assert first.most_in_flight == 54  # the credit has not been sent yet
    delivery, _ = worker.take_delivery(first, with_new=True)
    assert delivery.credits == {0: 10}
    assert first.most_in_flight == 64


def test_steps_of_an_abandoned_environment_are_lost_once() -> None:
    worker = made_worker()
    link = wanting(worker, 0)
    first = started(worker)
    worker.accept(first, Batch(0, ((0, played(3)),), (Ended(0, "left behind", 2),)))
    assert (worker.lost_steps, first.received) == (2, 5)
    assert posted(link)[-1] == WorkerExited(why="left behind")


def test_weights_go_to_a_process_once() -> None:
    worker = made_worker()
    links = [wanting(worker, number) for number in range(3)]
    first = started(worker)
    old, new = Weights(1, {}), Weights(2, {})
    links[0].send(old)
    assert worker.take_delivery(first, with_new=True)[1] is old
    links[0].send(new)
    links[1].send(new)
    delivery, weights = worker.take_delivery(first, with_new=True)
    assert (delivery.updated, weights) == ((0, 1), new)
    links[2].send(new)
    delivery, weights = worker.take_delivery(first, with_new=True)
    assert (delivery.updated, weights) == ((2,), None)


def test_processes_that_end_before_a_step_are_started_ever_later_and_then_no_more() -> None:
    worker = made_worker()
    link = wanting(worker, 0)
    now, pauses = 100.0, []
    for _ in range(4):
        worker.lose(started(worker), "it crashed", now, may_give_up=True)
        assert worker.start_at is not None
        pauses.append(worker.start_at - now)
        now, worker.start_at = worker.start_at, None
        assert posted(link) == [WorkerExited(why="it crashed", is_lost=True)]
        link = wanting(worker, 0)
    assert pauses == [0.0, 0.5, 1.0, 2.0]
    worker.lose(started(worker), "it crashed", now, may_give_up=True)
    assert worker.start_at is None
    failed, exited = posted(link)
    assert isinstance(failed, messages.Failed)
    assert isinstance(failed.error, ConfigError)
    assert str(failed.error).startswith(
        "worker 3: 5 processes in a row have ended before they had played a step (it crashed)"
    )
    assert isinstance(exited, WorkerExited)


def test_it_is_tried_for_ever_while_other_workers_play() -> None:
    worker = made_worker()
    for _ in range(20):
        wanting(worker, 0)
        worker.lose(started(worker), "its node is short of memory", 0.0, may_give_up=False)
    assert worker.start_at == 30.0  # not more often than this


def test_a_link_that_is_stopped_while_it_waits_ends_at_once() -> None:
    worker = made_worker()
    link = RayLink(Assignment(actor_id=0, seed=None, episode=0), b"", worker)
    link.send(messages.Stop())
    worker.add(link)
    waiting = wanting(worker, 1)
    waiting.kill()
    assert posted(link) == posted(waiting) == [WorkerExited()]
    assert not worker.is_wanted


def test_an_environment_that_holds_its_process_costs_the_process() -> None:
    worker = made_worker()
    link = wanting(worker, 7)
    first = started(worker)
    worker.accept(first, Batch(0, ((0, played(1)),)))
    link.kill()
    assert link.killed_at is not None
    assert worker.stuck(first, link.killed_at + 2.0) is None
    assert worker.stuck(first, link.killed_at + 3.0) == (
        "actor 7: its environment does not let its process answer"
    )
