"""The actors of a training: one for each environment, one for a vector environment, or one for each agent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from stoker.actors import (
    ActorGroup,
    EnvFactory,
    FailureLimit,
    JointActorGroup,
    Place,
    PlayerGroup,
    VectorActorGroup,
)
from stoker.multi import SelfPlay
from stoker.session import TrainingSession
from stoker.trainer.cluster_config import worker_range
from stoker.trainer.gate import StepGate
from stoker.trainer.trainer_config import TrainerConfig

if TYPE_CHECKING:
    from stoker.distributed import Cluster, RayPlace


@contextlib.asynccontextmanager
async def cluster_for(config: TrainerConfig) -> AsyncGenerator[None]:
    """Connect to the cluster of a trainer's actors, if they play on one; the connection ends with the block.

    Raises:
        ConfigError: The cluster cannot be reached.
        MissingDependency: Ray is not installed.
    """
    if config.actors != "ray":
        yield
        return
    cluster = await to_thread.run_sync(_connected, config)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(cluster.close)


def _connected(config: TrainerConfig) -> Cluster:
    from stoker.distributed import Cluster

    most = worker_range(config.workers or 1).most
    return Cluster.connect(config.cluster, local_cpus=most * config.worker_cpus)


@contextlib.asynccontextmanager
async def place_for(config: TrainerConfig) -> AsyncGenerator[Place | None]:
    """The place of a trainer's actors, closed at the end; None: a name says it.

    Args:
        config: of the trainer.

    Raises:
        ConfigError: The cluster cannot be reached.
        MissingDependency: Ray is not installed.
    """
    if config.actors != "ray":
        yield None
        return
    place = await to_thread.run_sync(_on_cluster, config)
    try:
        yield place
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(place.close)


def _on_cluster(config: TrainerConfig) -> RayPlace:
    from stoker.distributed import RayPlace

    workers = worker_range(config.workers or 1)
    return RayPlace(
        config.cluster,
        envs_per_worker=config.envs_per_worker,
        worker_cpus=config.worker_cpus,
        min_workers=workers.least,
        max_workers=workers.most,
    )


def players_on(
    session: TrainingSession,
    config: TrainerConfig,
    factory: EnvFactory,
    limit: FailureLimit | None,
    *,
    vector_factory: EnvFactory | None = None,
    is_joint: bool = False,
    games: SelfPlay | None = None,
    gate: StepGate | None = None,
    place: Place | None = None,
) -> PlayerGroup:
    """The players of a trainer's environments.

    Args:
        session: entered.
        config: of the trainer.
        factory: makes one environment.
        limit: how many failures of an environment are tolerated.
        vector_factory: makes vector environments, which are played instead.
        is_joint: whether several agents play each environment.
        games: who plays them, in self-play.
        gate: through which single steps are fetched.
        place: where they play; None: where the config says.
    """
    shared: dict[str, Any] = {"stepping": config.stepping, "seed": config.seed, "limit": limit}
    if games is not None:
        return JointActorGroup(games.seats, factory, config.num_envs, assign=games.assign, **shared)
    if is_joint:
        return JointActorGroup(session, factory, config.num_envs, **shared)
    shared |= {"place": place or config.actors, "sync_interval": config.sync_interval}
    if vector_factory is not None:
        indices = range(config.num_envs)
        workers = worker_range(config.workers).most if config.workers else None
        return VectorActorGroup(session, vector_factory, indices, workers=workers, **shared)
    on_step = None if gate is None else gate.add
    return ActorGroup(session, factory, config.num_envs, gate=gate, on_step=on_step, **shared)
