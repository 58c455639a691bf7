"""Several policies that learn together, and policies that learn by playing against their own past."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.multi.opponents import OpponentPool as OpponentPool
    from stoker.multi.selfplay import SelfPlay as SelfPlay
    from stoker.multi.session import GroupReadings as GroupReadings, MultiAgentSession as MultiAgentSession
    from stoker.multi.versus import OpponentEnv as OpponentEnv
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
