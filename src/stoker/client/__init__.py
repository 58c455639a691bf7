"""A client of ``stoker serve``: a session on a server, which actors use as they use one in their process."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.client.connecting import connect as connect
    from stoker.client.session import RemoteSession as RemoteSession
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
