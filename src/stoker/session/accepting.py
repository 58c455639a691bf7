"""Acceptance: what the intake admitted goes into the queue, in order and exactly up to the limit.

``TrainingSession.observe`` does the usual case by itself, because it is the hot path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from anyio.lowlevel import checkpoint

from stoker.session.decisions import RememberedBatch
from stoker.session.intake import Accepted
from stoker.session.parts import Parts
from stoker.types import ExperienceBatch


async def accept(parts: Parts, batch: Sequence[Accepted]) -> None:
    """Put experiences into the queue. Cancelled: some of the first are in, the rest is out.

    Raises:
        ActorConflict: Another task waits in ``observe`` under the same ``actor_id``.
    """
    intake, queue, pacing = parts.intake, parts.queue, parts.pacing
    is_paced = pacing.limit is not None
    was_refused = False
    try:
        if (
            intake.is_plain
            and not is_paced
            and 0 < len(batch) <= min(queue.credit, intake.limit - intake.accepted_steps)
        ):  # nearly always, without a call for each
            intake.accepted_steps += len(batch)
            queue.offer_together([experience for experience, _ in batch])
            return
        for experience, remembered in batch:
            actor_id = experience.actor_id
            if not intake.reserve(actor_id):
                pacing.end(actor_id)
                was_refused = True
                continue
            if not queue.offer(experience):
                await parts.wait_for_room({actor_id: 1}, queue.put, experience)
            intake.settle(actor_id, remembered)
            if is_paced:
                pacing.end(actor_id)
    except BaseException:
        intake.recount()
        raise
    if was_refused:  # not after the only one of ``observe`` went in: cancelled, it must be out
        await checkpoint()  # a loop around observe must not hold the event loop
    if parts.config.lockstep:
        await parts.request("barrier")


async def accept_batch(parts: Parts, batch: ExperienceBatch, remembered: RememberedBatch | None) -> None:
    """Put the rows of a batch that the limit allows into the queue, together. Cancelled: all are out.

    Raises:
        ActorConflict: As for ``accept``.
    """
    intake, actor_ids = parts.intake, batch.actor_ids
    try:
        n_fit = intake.reserve_rows(len(actor_ids))
        part = batch[:n_fit]
        if n_fit and not parts.queue.offer(part, n_fit):
            await parts.wait_for_room(Counter(part.actor_ids), parts.queue.put, part, n_fit)
        intake.settle_batch(remembered)
        intake.refuse(actor_ids[n_fit:])
        if parts.pacing.limit is not None:
            for actor_id in actor_ids:
                parts.pacing.end(actor_id)
    except BaseException:
        intake.recount()
        raise
    if not n_fit:
        await checkpoint()
    if parts.config.lockstep:
        await parts.request("barrier")
