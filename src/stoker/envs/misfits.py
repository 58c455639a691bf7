"""Whether an environment can be played by an agent: what its spaces must have in common with the agent's.

Only an environment that has failed is looked at: one whose declared spaces are wrong may still be played.
Bounds do not count: an agent may have narrower ones than the environment.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from gymnasium import spaces

from stoker.plain import shown


def misfit(env: tuple[Any, Any], agent: tuple[Any, Any]) -> str | None:
    """How the spaces of observations and actions of an environment and of an agent differ, in words.

    Args:
        env: those of the environment; what is no space of Gymnasium is not compared.
        agent: those of the agent.

    Returns:
        None: they do not differ in what values look like.
    """
    for what, here, there in zip(("observation", "action"), env, agent, strict=True):
        if not (isinstance(here, spaces.Space) and isinstance(there, spaces.Space)):
            continue
        if _form(here) != _form(there):
            way_out = "make the agent for the spaces of the environment"
            return f"its {what} space is {shown(here)}, and the agent was made for {shown(there)}: {way_out}"
    return None


def _form(space: Any) -> Any:
    """What the values of a space look like, bounds apart."""
    kind = cast("type[object]", type(space))
    if issubclass(kind, spaces.Discrete):
        return int(space.start), int(space.n)
    if issubclass(kind, spaces.MultiDiscrete):
        return space.nvec.tolist(), space.start.tolist()
    if issubclass(kind, spaces.Dict):
        return {key: _form(part) for key, part in space.spaces.items()}
    if issubclass(kind, spaces.Tuple):
        return [_form(part) for part in space.spaces]
    if issubclass(kind, spaces.Box | spaces.MultiBinary):
        return space.shape, np.dtype(space.dtype).kind
    return kind
