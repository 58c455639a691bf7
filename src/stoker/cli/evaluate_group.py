"""``stoker eval`` of one policy of several: all of them play together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from anyio import to_thread

from stoker.errors import ActorFailed

if TYPE_CHECKING:
    from stoker.session import PolicySnapshot
    from stoker.trainer import Evaluation


async def evaluated_in_group(
    run: Path,
    snapshot: PolicySnapshot,
    newest: Callable[[Path], Awaitable[PolicySnapshot]],
    n_episodes: int,
    *,
    seed: int | None,
    render_mode: str | None,
    around: Callable[[Any], Any] | None = None,
) -> Evaluation:
    """Score a policy in episodes with the others of its group.

    An episode counts with the mean of the total rewards of the policy's agents.

    Args:
        run: the directory of the policy's run.
        snapshot: the policy.
        newest: the policy in the newest checkpoint of another one's run.
        n_episodes: how many episodes.
        seed: of the episodes; None: the training's.
        render_mode: how the environment shows them; None: not at all.
        around: wraps the environment.

    Raises:
        RunBroken: The group cannot be read.
        ActorFailed: The environment failed.
    """
    from stoker.actors.episodes import EnvironmentFailed
    from stoker.runs import TrainingGroup
    from stoker.trainer import Evaluation
    from stoker.trainer.groups import GroupConfig, play_together
    from stoker.trainer.making import with_render_mode

    group = await to_thread.run_sync(TrainingGroup.find, run.parent)
    config = GroupConfig.from_builtins(group.committed.config, run.parent)
    if render_mode is not None:
        shown = with_render_mode(msgspec.structs.replace(config.training, stepping="inline"), render_mode)
        config = msgspec.structs.replace(config, training=shown)
    snapshots = {run.name: snapshot}
    for name in config.policies:
        if name != run.name:
            snapshots[name] = await newest(run.parent / name)
    try:
        records = await play_together(config, snapshots, n_episodes, seed=seed, around=around)
    except EnvironmentFailed as failure:
        raise ActorFailed("evaluation", 1, 0.0, failure.__cause__ or failure) from failure.__cause__
    return Evaluation(total_steps=snapshot.total_steps, records=tuple(records[run.name]))
