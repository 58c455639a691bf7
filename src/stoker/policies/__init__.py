"""Policies by themselves: loaded to act, and exported to other programs and languages."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.policies.description import PolicyDescription as PolicyDescription
    from stoker.policies.exported import LoadedPolicy as LoadedPolicy
    from stoker.policies.exporting import export_policy as export_policy
    from stoker.policies.fqe import PolicyValue as PolicyValue, fitted_q_evaluation as fitted_q_evaluation
    from stoker.policies.loading import load_policy as load_policy
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
