"""A training as a service: remote actors in any language send numbered records, and get actions back."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.service.app import make_app as make_app, service_lifespan as service_lifespan
    from stoker.service.auth import Gate as Gate
    from stoker.service.backend import Backend as Backend
    from stoker.service.holders import Holder as Holder
    from stoker.service.limits import Limits as Limits
    from stoker.service.steps import StepService as StepService
    from stoker.service.tokens import Principal as Principal, Tokens as Tokens
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
