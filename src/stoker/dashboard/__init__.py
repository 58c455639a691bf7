"""The page over a runs directory, and its API: read-only, live, and mountable in other applications."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.dashboard.app import dashboard_lifespan as dashboard_lifespan, make_app as make_app
    from stoker.dashboard.index import Index as Index
    from stoker.dashboard.login import Login as Login
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
