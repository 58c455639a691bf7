"""``stoker record``: film a run's policy. The run is only read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from stoker.cli.evaluate import PolicyCommand, StoredPolicy, episodes_of
from stoker.cli.options import Flag
from stoker.cli.printing import from_here, say_json
from stoker.errors import ConfigError
from stoker.runs.layout import is_group
from stoker.settings import Count
from stoker.trainer.views.text import number

if TYPE_CHECKING:
    from stoker.cli.video import Film
    from stoker.trainer import Evaluation


class Record(PolicyCommand, frozen=True, kw_only=True):
    """Film a run's policy, greedily, over whole episodes, to one video. Nothing is written to the run.

    The episodes are those that `stoker eval` plays with the same seed; all policies of a group play in them.
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

        with Film() as film:
            played = await self._filmed(film, found)
            await film.publish(checked_target(target, replaces=self.force))
        if self.json:
            say_json({**found.facts(), "video": str(target), "episodes": episodes_of(played)})
        else:
            rewards = ", ".join(map(number, played.rewards))
            which = f"{found.path.name} of step {found.snapshot.total_steps:,}"
            print(f"{from_here(target.absolute())}: {which}, reward {rewards}")
        return 0

    async def _filmed(self, film: Film, found: StoredPolicy) -> Evaluation:
        """Play the episodes before the camera."""
        from stoker.trainer.making import env_for, with_render_mode

        config = with_render_mode(found.config, "rgb_array")
        if is_group(found.run.directory.parent):
            from stoker.cli.evaluate_group import evaluated_in_group

            return await evaluated_in_group(
                found.run.directory,
                found.snapshot,
                self.newest,
                self.episodes,
                seed=self.seed,
                render_mode="rgb_array",
                around=partial(film.around, name=config.env, longest=config.eval_max_episode_steps),
            )

        from stoker.actors import FailureLimit
        from stoker.trainer import evaluate
        from stoker.trainer.vectorizing import eval_factory_for

        def make() -> Any:
            try:
                env = env_for(config)
            except ConfigError as error:
                raise ConfigError(f"a film needs render_mode='rgb_array': {error}") from error
            return film.around(env, config.env, config.eval_max_episode_steps)

        return await evaluate(
            found.snapshot,
            eval_factory_for(msgspec.structs.replace(config, vectorize="none"), make),
            self.episodes,
            seed=self.seed_of(config),
            stepping="thread" if config.stepping == "auto" else config.stepping,  # some windows need it
            concurrency=1,
            max_episode_steps=config.eval_max_episode_steps,
            limit=FailureLimit(failures=1),
        )
