"""``stoker record``: film a run's policy. The run is only read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from stoker.cli.evaluate import PolicyCommand, episodes_of
from stoker.cli.options import Flag
from stoker.cli.printing import from_here, say_json
from stoker.errors import ConfigError
from stoker.settings import Count
from stoker.trainer.views.text import number


class Record(PolicyCommand, frozen=True, kw_only=True):
    """Film a run's policy, greedily, over whole episodes, to one video. Nothing is written to the run.

    The episodes are those that `stoker eval` plays with the same seed.
    """

    output: Annotated[
        str,
        Flag(short="-o", metavar="FILE", missing="the film, such as `stoker {command} RUN -o film.mp4`"),
    ]
    """The video: a .mp4 or .gif file."""

    episodes: Count = 1
    """How many episodes, one after the other."""

    force: bool = False
    """Replace a file of that name."""

    async def __call__(self) -> int:
        from stoker.cli.video import Film, check_packages, checked_target

        target = checked_target(Path(self.output), replaces=self.force)
        check_packages()
        found = await self.stored()

        from stoker.trainer.making import env_for, plays_jointly

        if plays_jointly(found.config):
            raise ConfigError(
                f"{found.config.env} is played by several agents, and a film shows a single environment: use "
                "`stoker eval RUN --render`, which opens a window"
            )

        from gymnasium.wrappers import TimeLimit

        from stoker.actors import FailureLimit
        from stoker.trainer import evaluate

        env_kwargs = {**found.config.env_kwargs, "render_mode": "rgb_array"}
        config = msgspec.structs.replace(found.config, env_kwargs=env_kwargs)
        with Film() as film:

            def make() -> Any:
                try:
                    env = env_for(config)
                except ConfigError as error:
                    raise ConfigError(f"a film needs render_mode='rgb_array': {error}") from error
                longest = config.eval_max_episode_steps
                return film.around(env if longest is None else TimeLimit(env, longest), config.env)

            played = await evaluate(
                found.snapshot,
                make,
                self.episodes,
                seed=self.seed_of(config),
                stepping="thread" if config.stepping == "auto" else config.stepping,  # some windows need it
                concurrency=1,
                limit=FailureLimit(failures=1),
            )
            await film.publish(checked_target(target, replaces=self.force))
        if self.json:
            say_json({**found.facts(), "video": str(target), "episodes": episodes_of(played)})
        else:
            rewards = ", ".join(map(number, played.rewards))
            which = f"{found.path.name} of step {found.snapshot.total_steps:,}"
            print(f"{from_here(target.absolute())}: {which}, reward {rewards}")
        return 0
