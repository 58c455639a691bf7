"""``--export-best``: write the best policy of a training for other programs when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from anyio import to_thread

from stoker.agents.protocol import HasPolicyModule, LearningAgent
from stoker.cli.limits import ExportFormat
from stoker.cli.printing import from_here
from stoker.errors import ConfigError, MissingDependency


def check_export(formats: Sequence[ExportFormat], agent: LearningAgent) -> None:
    """Refuse what could not be exported at the end, before anything is trained.

    Raises:
        ConfigError: The agent has no policy module.
        MissingDependency: The package that writes or checks a format is not installed.
    """
    if formats and not isinstance(agent, HasPolicyModule):
        raise ConfigError(
            f"--export-best {' '.join(formats)}: a {type(agent).__name__} has no policy_module() that could "
            "be exported; add it, or leave the flag out"
        )
    for package in ("onnx", "onnxruntime") if "onnx" in formats else ():
        if find_spec(package) is None:
            raise MissingDependency(package, "onnx")


async def export_best(run: Path, formats: Sequence[ExportFormat]) -> str:
    """Write the policy of a run that has ended into ``policy`` in its directory; says where, in a line.

    Raises:
        ConfigError, ExportFailed, StokerError: As for ``export_policy``.
    """
    from stoker.policies.exporting import export_policy

    out = run / "policy"
    description = await to_thread.run_sync(export_policy, run, out, tuple(formats))
    return f"  {'policy':<18} {from_here(out)} ({description.checkpoint}: {', '.join(description.files)})"
