"""``load_policy``: the policy of a run, or one that was exported, ready to act."""

from __future__ import annotations

from pathlib import Path

from stoker.errors import RunBroken, RunNotFound
from stoker.policies.exported import DESCRIPTION, FILES, LoadedPolicy, load_exported, load_file
from stoker.types import AnyPath

_FORMS = {Path(name).suffix: form for form, name in FILES.items()}


def is_exported(path: Path) -> bool:
    """Whether there is a policy that ``stoker export`` wrote: its directory, or one of the files."""
    return (path / DESCRIPTION).is_file() or (path.suffix in _FORMS and path.is_file())


def load_policy(path: AnyPath, which: str | int | None = None) -> LoadedPolicy:
    """Load a policy to act with.

    Args:
        path: a run, as ``TrainingRun.open`` finds it; or a directory that ``stoker export`` made, or a file
            from it, or one that ``GET /v1/policy`` gave: ``.npz``, ``.onnx`` or ``.pt2``.
        which: of a run: the ``"best"`` policy, the ``"latest"``, or that of a step; left out: the best, or
            the latest if none was evaluated.

    Raises:
        RunNotFound: There is neither a run nor an exported policy.
        RunBroken: A file of it is missing or damaged.
        CheckpointNotFound, CheckpointCorrupt: The run has no such policy, or it cannot be read.
        ConfigError: The run's agent cannot be made here.
        MissingDependency: onnxruntime is needed.
    """
    there = Path(path)
    if (form := _FORMS.get(there.suffix)) is not None and there.is_file():
        return load_file(there, form)
    if (there / DESCRIPTION).is_file():
        found = next((form for form, name in FILES.items() if (there / name).is_file()), None)
        if found is None:
            raise RunBroken(there, f"has none of {', '.join(FILES.values())}: export the policy again")
        return load_exported(there, found)
    if there.is_file():
        files = ", ".join(FILES.values())
        raise RunNotFound(there, f"is no exported policy: name its directory, or {files}; or that of a run")
    from stoker.policies.of_runs import policy_of_run  # brings torch

    return policy_of_run(there, which)
