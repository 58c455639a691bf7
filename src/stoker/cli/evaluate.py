"""``stoker eval`` and ``stoker replay``: score a run's policy, or train its agent again. The run is read."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
from anyio import to_thread

from stoker.cli.bars import StepBar
from stoker.cli.options import Flag
from stoker.cli.parsing import RunCommand, Which
from stoker.cli.printing import columns, say, say_json
from stoker.errors import ConfigError
from stoker.runs.layout import is_group
from stoker.settings import Count, Fraction, Natural
from stoker.trainer.views.text import number

if TYPE_CHECKING:
    from stoker.runs import TrainingRun
    from stoker.session import PolicySnapshot
    from stoker.session.replaying import Replayed
    from stoker.trainer import Evaluation, TrainConfig

_SHOWN = 5
"""How many differences are named."""


class StoredPolicy(NamedTuple):
    """A policy of a run.

    Attributes:
        run: the run.
        config: its config.
        path: the checkpoint.
        snapshot: the policy.
    """

    run: TrainingRun
    config: TrainConfig
    path: Path
    snapshot: PolicySnapshot

    def facts(self) -> dict[str, Any]:
        """Where it comes from, for a line of JSON."""
        steps = self.snapshot.total_steps
        return {"run": str(self.run.directory), "checkpoint": self.path.name, "total_steps": steps}


class PolicyCommand(RunCommand, frozen=True, kw_only=True):
    """A command about the policy in one of a run's checkpoints."""

    checkpoint: Which = None
    """Whose policy: that of the best evaluation, the newest, or of a step."""

    seed: Annotated[int | None, Flag(metavar="INT", default="default: the run's")] = None
    """Seed of the episodes; the run's own gives those that its training was evaluated on."""

    device: Annotated[str | None, Flag(metavar="STR", default="default: the run's")] = None
    """Where to compute: cpu, cuda, cuda:1, mps."""

    async def stored(self) -> StoredPolicy:
        """Find the run and the checkpoint, and load the policy.

        Raises:
            RunNotFound, RunBroken, CheckpointNotFound, CheckpointCorrupt: It is not there, or damaged.
            ConfigError: The checkpoint is another agent's, or a module of the run cannot be imported.
        """
        from stoker.cli.stored import open_trained
        from stoker.runs.wanted import content_of, load_wanted

        run, config = await open_trained(self.run)
        path, state = await to_thread.run_sync(load_wanted, run, self.checkpoint)

        from stoker.session import PolicySnapshot
        from stoker.trainer import agent_for

        if self.device is not None:
            config = msgspec.structs.replace(config, device=self.device)
        agent = agent_for(config)
        if (kind := state.get("agent_type")) != type(agent).__name__:
            raise ConfigError(f"{path}: trained by {kind}, the run's config says {config.agent}")
        with content_of(path):
            agent.load_state_dict(state["agent"])
            steps = int(state["session"]["total_steps"])
        if self.checkpoint is None and path != run.best_checkpoint_path:
            print("there is no best checkpoint: this is the latest", file=sys.stderr)
        return StoredPolicy(run, config, path, PolicySnapshot(agent.policy(), total_steps=steps, state={}))

    async def newest(self, run: Path) -> PolicySnapshot:
        """The policy in the newest checkpoint of a run."""
        return (await msgspec.structs.replace(self, run=str(run), checkpoint="latest").stored()).snapshot

    def seed_of(self, config: TrainConfig) -> int:
        """The seed of the episodes."""
        return config.seed if self.seed is None else self.seed


class Evaluate(PolicyCommand, frozen=True, kw_only=True):
    """Score a run's policy, greedily, over whole episodes. Nothing is written to the run.

    With --offline nothing is played: fitted Q evaluation estimates the return of the policy from the episodes
    of a data set, which others may have played. RUN may then be an exported policy, too. One policy of
    several is scored by the mean of its agents; the others play by their newest checkpoints.
    """

    episodes: Count = 20
    """How many episodes."""

    list: bool = False
    """Print each episode."""

    render: bool = False
    """Show the episodes in a window, one after the other."""

    offline: Annotated[str, Flag(metavar="DATA")] = ""
    """Estimate the discounted return from this data set, instead of playing."""

    ends: Literal["terminal", "timeout"] | None = None
    """With --offline: what the ends of its episodes are, if it does not tell."""

    updates: Annotated[Count | None, Flag(metavar="N", default="default: 20000")] = None
    """With --offline: gradient steps; too few underestimate returns that are far away."""

    gamma: Annotated[Fraction | None, Flag(metavar="FLOAT", default="default: 0.99")] = None
    """With --offline: the discount; 1, for episodes that all terminate: the undiscounted return."""

    async def __call__(self) -> int:
        self._check_flags()
        if self.offline:
            from stoker.cli.evaluate_offline import estimate

            return await estimate(
                self.run,
                self.checkpoint,
                self.offline,
                ends=self.ends,
                gamma=0.99 if self.gamma is None else self.gamma,
                n_updates=self.updates or 20_000,
                seed=self.seed or 0,
                device=self.device or "cpu",
                as_json=self.json,
            )
        stored = await self.stored()

        from stoker.stats import EvalReport

        if is_group(stored.run.directory.parent):
            from stoker.cli.evaluate_group import evaluated_in_group

            found = await evaluated_in_group(
                stored.run.directory,
                stored.snapshot,
                self.newest,
                self.episodes,
                seed=self.seed,
                render_mode="human" if self.render else None,
            )
        else:
            found = await self._evaluated(stored)
        stats = {name.removeprefix("eval/"): value for name, value in found.metrics().items()}
        stats["mean_length"] = stats.pop("mean_ep_length")
        if self.json:
            episodes = episodes_of(found)
            say_json({**stored.facts(), "n_episodes": self.episodes, **stats, "episodes": episodes})
            return 0
        if self.list:
            table = columns(("episode", "reward", "length", "ended"), numbers=range(3))
            for index, record in enumerate(found.records):
                table.add_row(
                    str(index), number(record.total_reward), number(record.length), str(record.status)
                )
            say(table)
            say()
        print(EvalReport(total_steps=stored.snapshot.total_steps, n_episodes=self.episodes, stats=stats))
        return 0

    async def _evaluated(self, stored: StoredPolicy) -> Evaluation:
        """The result of its episodes."""
        from stoker.trainer import evaluate
        from stoker.trainer.making import with_render_mode
        from stoker.trainer.vectorizing import eval_factory_for

        config = stored.config
        more: dict[str, Any] = {
            "stepping": config.stepping,
            "max_episode_steps": config.eval_max_episode_steps,
        }
        factory = eval_factory_for(config, n_episodes=self.episodes)
        if self.render:
            shown = with_render_mode(msgspec.structs.replace(config, vectorize="none"), "human")
            factory = eval_factory_for(shown)
            more |= {"stepping": "inline", "concurrency": 1}  # a window may need the main thread
        return await evaluate(stored.snapshot, factory, self.episodes, seed=self.seed_of(config), **more)

    def _check_flags(self) -> None:
        """Refuse flags that go with ``--offline`` only, or without it only."""
        playing = {"list": self.list, "render": self.render}
        estimating = {"ends": self.ends, "updates": self.updates, "gamma": self.gamma}
        for name, value in (playing if self.offline else estimating).items():
            if value in (None, False):
                continue
            if self.offline:
                raise ConfigError(f"--{name} --offline: nothing is played on a data set; give one of them")
            raise ConfigError(f"--{name} {value} is about a data set: name it with --offline")


def episodes_of(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The episodes of an evaluation in the order of their seeds, for JSON."""
    return [msgspec.to_builtins(record) for record in evaluation.records]


class Replay(RunCommand, frozen=True, kw_only=True):
    """Train again from a run's journal, without environments: the same events, the same weights.

    It begins with the first event if the journal still has it, else at the oldest checkpoint that it leads on
    from. At each saved checkpoint, the two states are compared bit by bit. The run is only read.
    """

    to_step: Annotated[Natural | None, Flag(metavar="STEP", default="default: the journal's end")] = None
    """Environment steps to replay."""

    from_step: Annotated[Natural | None, Flag(metavar="STEP", default="default: the earliest")] = None
    """The checkpoint to begin at."""

    warm_data: Annotated[str | None, Flag(metavar="DATA", default="default: where they were")] = None
    """Where the prior data of a run with --warm-data are now."""

    verify: bool = False
    """Exit with 1 unless at least one saved checkpoint was compared and all of them are equal."""

    out: Annotated[str | None, Flag(metavar="FILE.pt")] = None
    """Write the agent's state where the replay ends, for torch.load."""

    async def __call__(self) -> int:
        from stoker.cli.stored import open_trained

        run, config = await open_trained(self.run)

        from stoker.session.replaying import replay_run
        from stoker.session.state import weights_of
        from stoker.trainer import agent_for
        from stoker.trainer.making import set_torch_threads
        from stoker.trainer.parts import NamedDataset
        from stoker.trainer.warming import warmed_up
        from stoker.writer import publish_checkpoint

        set_torch_threads(config)
        agent = agent_for(config)
        if self.warm_data is not None:
            config = msgspec.structs.replace(config, warm_data=self.warm_data)
        if config.warm_data:
            warmed_up(agent, NamedDataset(config.warm_data, config.ends), config.mix)
        started = time.monotonic()
        with StepBar("replayed", self.to_step, shown=not self.json) as bar:
            replayed = replay_run(run, agent, to_step=self.to_step, from_step=self.from_step, watch=bar.show)
        elapsed_s = time.monotonic() - started
        if self.out is not None:
            publish_checkpoint(weights_of(agent, {"total_steps": agent.total_steps}), Path(self.out))
        if self.json:
            say_json({"run": str(run.directory), "elapsed_s": elapsed_s, **msgspec.structs.asdict(replayed)})
        else:
            _print_report(replayed, elapsed_s)
        is_equal = bool(replayed.comparisons) and not any(found.differences for found in replayed.comparisons)
        return 0 if is_equal or not self.verify else 1


def _print_report(replayed: Replayed, elapsed_s: float) -> None:
    n_steps = replayed.total_steps - replayed.from_steps
    print(
        f"replayed {number(n_steps)} steps, from {number(replayed.from_steps)} to "
        f"{number(replayed.total_steps)}: {number(replayed.total_episodes)} episodes and "
        f"{number(replayed.opt_steps)} optimization steps in all, in {elapsed_s:.1f} s"
    )
    for found in replayed.comparisons:
        verdict = "equal, bit by bit"
        if found.differences:
            n_more = len(found.differences) - _SHOWN
            more = f" and {n_more} more" if n_more > 0 else ""
            verdict = f"DIFFERENT in {', '.join(found.differences[:_SHOWN])}{more}"
        print(f"  step_{found.step}.pt: {verdict}")
    if not replayed.comparisons:
        print("  no checkpoint lies on the way: there was nothing to compare with")
