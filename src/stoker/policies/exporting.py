"""``export_policy``: a policy as files that run without stoker, checked before they are published.

DIR/policy.json                   what the policy is: spaces, run, step, reward, digests of the files
    policy.onnx                   for onnxruntime, in any language
    policy.pt2                    for torch.export.load
    policy.npz, numpy_policy.py   for numpy alone
    vectors.npz                   observations, and the actions that the policy takes
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import torch
from torch import nn

import stoker.policies.numpy_policy as numpy_policy
from stoker.agents.protocol import Policy
from stoker.errors import ConfigError, ExportFailed, JournalBroken
from stoker.journal import Journal
from stoker.policies.description import PolicyDescription, parts_in
from stoker.policies.exported import DESCRIPTION, FILES, policy_from_bytes
from stoker.policies.of_runs import TrainedPolicy, outputs_of, program_of, trained_policy
from stoker.protocol import Spaces
from stoker.types import ActMode, AnyPath, Experience
from stoker.writer import files

_logger = logging.getLogger("stoker.policies")
PolicyFormat: TypeAlias = Literal["onnx", "pt2", "numpy"]
"""See ``export_policy``."""

VECTORS = "vectors.npz"
_N_VECTORS = 256
_LAST_EVENTS = 4096
"""Of the journal's events, those that vectors are chosen from."""
_TOLERANCE = 1e-5
_BATCHES = (1, 7, _N_VECTORS)
"""The sizes of the batches that are checked."""


def export_policy(
    run: AnyPath,
    directory: AnyPath,
    formats: Sequence[PolicyFormat] = ("onnx",),
    *,
    which: str | int | None = None,
    stochastic: bool = False,
) -> PolicyDescription:
    """Write the policy of a run to a directory, in one or several formats. Blocks.

    Every file is loaded again and acts on 256 observations, mostly from the run's journal, in batches of
    several sizes. Only if its actions are those of the agent's own policy does the directory appear, whole.
    Discrete actions must be equal. Where the values of two actions differ by less than 1e-5, which is how
    libraries round, either is right. Numbers may differ by 1e-5.

    Args:
        run: the run, which is only read; it may be training.
        directory: must not exist, or hold an exported policy, which is replaced.
        formats: ``"onnx"``, ``"pt2"`` (``torch.export``) or ``"numpy"``.
        which: as for ``load_policy``.
        stochastic: also compute what the actions are chosen by: ``values``, ``logits``, or ``mean`` and
            ``std``.

    Returns:
        What policy.json says.

    Raises:
        ConfigError: The agent has no ``policy_module``, or it uses an operation that a format lacks, or there
            is something else in the directory.
        MissingDependency: onnx or onnxruntime is not installed.
        ExportFailed: A file acts otherwise than the policy. Nothing was published.
        RunNotFound, RunBroken, CheckpointNotFound, CheckpointCorrupt: As for ``load_policy``.
        WriteFailed: The disk refused.
    """
    return export_trained(trained_policy(run, which), Path(directory), formats, is_stochastic=stochastic)


def export_trained(
    trained: TrainedPolicy, directory: Path, formats: Sequence[PolicyFormat], *, is_stochastic: bool = False
) -> PolicyDescription:
    """As ``export_policy``, of a policy that was found already."""
    _check_free(directory)
    description, contents = exported_files(trained, formats, is_stochastic=is_stochastic)
    files.publish_directory(directory, contents)
    return description


def exported_files(
    trained: TrainedPolicy,
    formats: Sequence[PolicyFormat],
    *,
    is_stochastic: bool = False,
    reads_journal: bool = True,
) -> tuple[PolicyDescription, dict[str, bytes]]:
    """What ``export_policy`` writes, checked: the description, and the content of each file.

    With ``reads_journal`` it is checked on observations of the run, else on samples: to read a long journal
    takes a second, in which other threads hardly run.
    """
    module = trained.module()
    if module is None:
        raise ConfigError(
            f"{type(trained.agent).__name__} cannot be exported: give it a method policy_module() that "
            "returns a torch.nn.Module from observations to actions (see stoker.HasPolicyModule)"
        )
    if not formats or set(formats) - {*FILES}:
        raise ConfigError(f"formats={formats!r}: give some of {', '.join(FILES)}")
    vectors = _vectors(trained, reads_journal=reads_journal)
    parts = {
        part.name: np.stack([parts_in(each, [part])[0] for each in vectors.observations]).astype(part.dtype)
        for part in trained.description.observation
    }
    actions = _actions(trained.agent.policy(), vectors.observations)
    expected = _outputs(module, parts, is_stochastic=is_stochastic)
    description = msgspec.structs.replace(
        trained.description, outputs=tuple(expected), vectors=vectors.source
    )
    contents: dict[str, bytes] = {}
    for form in dict.fromkeys(formats):
        contents |= _FORMATS[form](module, description, expected, is_stochastic)
    contents[VECTORS] = _npz(
        {f"observation:{name}": array for name, array in parts.items()} | {"action": actions}
    )
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    description = msgspec.structs.replace(description, files=digests)
    contents[DESCRIPTION] = msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"

    judge = _Judge(description, module, parts, actions)
    judge.compare("its policy module", expected["action"], actions)
    for form in dict.fromkeys(formats):
        compute = policy_from_bytes(contents[FILES[form]], form, FILES[form]).compute
        for size in _BATCHES:
            rows = [array[:size] for array in parts.values()]
            found = compute(*rows)
            judge.compare(f"{FILES[form]}, {size} at once,", found["action"], actions[:size])
            for name in description.outputs[1:]:
                if not np.allclose(found[name], expected[name][:size], _TOLERANCE, _TOLERANCE):
                    raise ExportFailed(f"{FILES[form]} gives other {name} than the policy")
    return description, contents


def _check_free(directory: Path) -> None:
    """Refuse a directory that holds something else, before any work."""
    if files.stat_of(directory) is not None and not directory.is_dir():
        raise ConfigError(f"{directory} is a file: name a directory")
    there = [*files.files_in(directory), *files.directories_in(directory)]
    known = {DESCRIPTION, VECTORS, *FILES.values(), _player().name}
    if unknown := sorted(set(there) - known):
        raise ConfigError(
            f"{directory} holds {unknown[0]}, which is no part of an exported policy: name another"
        )


class _Vectors(msgspec.Struct, frozen=True):
    observations: list[Any]
    source: Literal["journal", "sampled"]


def _vectors(trained: TrainedPolicy, *, reads_journal: bool) -> _Vectors:
    """Observations of the run, evenly spaced over its last ones; without a journal samples of the space."""
    seen = _seen_in(trained.run.journal) if reads_journal and trained.run is not None else []
    if not seen:
        space, _ = msgspec.convert(trained.description.spaces, Spaces).gymnasium()
        space.seed(0)
        return _Vectors([space.sample() for _ in range(_N_VECTORS)], "sampled")
    places = np.linspace(0, len(seen) - 1, _N_VECTORS).round().astype(int)
    return _Vectors([seen[place] for place in places], "journal")


def _seen_in(journal: Journal) -> list[Any]:
    """The last observations of a journal."""
    try:
        end = journal.n_events()
        first = journal.leads_from(end)
        if first is None:
            return []
        events = journal.read(max(first, end - _LAST_EVENTS), end)
        return [event.observation for _, event in events if isinstance(event, Experience)]
    except JournalBroken as error:
        _logger.warning("vectors are of samples: %s", error)
        return []


def _actions(policy: Policy, observations: list[Any]) -> Any:
    """What the agent's own policy does, as one array."""
    actions, _ = policy.act(observations, ActMode.EXPLOIT)
    return np.stack([np.asarray(action) for action in actions])


def _outputs(module: nn.Module, parts: Mapping[str, Any], *, is_stochastic: bool) -> dict[str, Any]:
    with torch.no_grad():
        found = outputs_of(module, is_stochastic=is_stochastic)(*map(torch.as_tensor, parts.values()))
    return {name: tensor.numpy() for name, tensor in found.items()}


class _Judge:
    """Compares actions with those of the policy.

    Args:
        description: of the policy.
        module: says what the actions are chosen by.
        parts: of the observations.
        actions: of the policy.
    """

    def __init__(
        self, description: PolicyDescription, module: nn.Module, parts: Mapping[str, Any], actions: Any
    ) -> None:
        self._action = description.action
        self._module = module
        self._parts = parts
        self._magnitude = np.ones(1)
        if description.action.kind == "box":
            self._magnitude = np.maximum(1, np.abs(self._means(actions)))

    def compare(self, what: str, found: Any, wanted: Any) -> None:
        """Raise ``ExportFailed`` for actions ``[N, *shape]`` that are others than the policy's."""
        if found.shape != wanted.shape:
            raise ExportFailed(f"{what} gives actions {list(found.shape)}, the policy {list(wanted.shape)}")
        if self._action.kind == "box":
            distance = np.abs(found.astype(np.float64) - wanted)
            is_same = distance <= _TOLERANCE * self._magnitude[: len(found)].reshape(wanted.shape)
        else:
            is_same = found == wanted
        rows = np.flatnonzero(~is_same.reshape(len(found), -1).all(axis=1))
        for row in rows:
            if self._action.kind == "box" or not self._is_near(int(row), found[row]):
                raise ExportFailed(
                    f"{what} gives the action {found[row].tolist()} for observation {row}, the policy "
                    f"{wanted[row].tolist()}; nothing was written"
                )

    def _means(self, actions: Any) -> Any:
        """The numbers that were clipped to the bounds, whose magnitude decides how they are rounded."""
        distribution: Any = getattr(self._module, "distribution", None)
        if distribution is None:
            return actions
        with torch.no_grad():
            found = distribution(*map(torch.as_tensor, self._parts.values()))
        return found["mean"].numpy().reshape(actions.shape) if "mean" in found else actions

    def _is_near(self, row: int, action: Any) -> bool:
        """Whether each number of a discrete action is as good as the best one, but for rounding."""
        distribution: Any = getattr(self._module, "distribution", None)
        if distribution is None:
            return False
        with torch.no_grad():
            found = distribution(*(torch.as_tensor(array[row : row + 1]) for array in self._parts.values()))
        values = found.get("values", found.get("logits"))
        if values is None:
            return False
        start = 0
        chosen = np.asarray(action).reshape(-1) - np.array(self._action.low, np.int64)
        for index, count in zip(chosen.tolist(), self._action.counts, strict=True):
            choices = values[0, start : start + count]
            best = choices.max().item()
            if not choices[index].item() >= best - _TOLERANCE * max(1.0, abs(best)):
                return False
            start += count
        return True


# Formats --------------------------------------------------------------------------------------------


def _numpy(
    module: nn.Module, description: PolicyDescription, expected: Mapping[str, Any], is_stochastic: bool
) -> dict[str, bytes]:
    program = program_of(module, description.observation, is_stochastic=is_stochastic)
    text = json.dumps({"inputs": program.inputs, "outputs": program.outputs, "nodes": program.nodes})
    texts = {"program": text.encode(), "description": _about(description)}
    arrays = program.constants | {name: np.frombuffer(each, np.uint8) for name, each in texts.items()}
    return {FILES["numpy"]: _npz(arrays), _player().name: _player().read_bytes()}


def _about(description: PolicyDescription) -> bytes:
    """The description inside a file, which cannot hold its own digest."""
    return msgspec.json.encode(msgspec.structs.replace(description, files={}))


def _player() -> Path:
    return Path(numpy_policy.__file__)


def _npz(arrays: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _onnx(
    module: nn.Module, description: PolicyDescription, expected: Mapping[str, Any], is_stochastic: bool
) -> dict[str, bytes]:
    from stoker.policies.onnx_graph import onnx_model

    program = program_of(module, description.observation, is_stochastic=is_stochastic)
    about = msgspec.to_builtins(description)
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in about.items()
        if name != "files"
    }
    inputs = {part.name: (part.dtype, part.shape) for part in description.observation}
    outputs = {name: (array.dtype.name, array.shape[1:]) for name, array in expected.items()}
    return {FILES["onnx"]: onnx_model(program, inputs, outputs, metadata)}


class _Named(nn.Module):
    """A module whose result is a dict."""

    def __init__(self, module: nn.Module, *, is_stochastic: bool) -> None:
        super().__init__()
        self.policy = module
        self._is_stochastic = is_stochastic

    def forward(self, *parts: torch.Tensor) -> dict[str, torch.Tensor]:
        return outputs_of(self.policy, is_stochastic=self._is_stochastic)(*parts)


def _pt2(
    module: nn.Module, description: PolicyDescription, expected: Mapping[str, Any], is_stochastic: bool
) -> dict[str, bytes]:
    examples = tuple(
        torch.as_tensor(np.zeros((2, *part.shape), part.dtype)) for part in description.observation
    )
    batch = torch.export.Dim("batch")
    file = io.BytesIO()
    with warnings.catch_warnings():  # torch warns of its own deprecations
        warnings.simplefilter("ignore")
        named = _Named(module, is_stochastic=is_stochastic)
        shapes = {"parts": ({0: batch},) * len(examples)}
        try:
            exported = torch.export.export(named, examples, dynamic_shapes=shapes)
        except Exception as error:  # it raises errors of many kinds
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"torch.export cannot export the policy module: {reason}") from error
        for name, constant in exported.constants.items():
            if isinstance(constant, torch.Tensor):  # torch confuses those that lie in numpy's memory
                exported.constants[name] = constant.detach().clone()
        torch.export.save(exported, file, extra_files={DESCRIPTION: _about(description).decode()})
    return {FILES["pt2"]: file.getvalue()}


_FORMATS: dict[str, Callable[..., dict[str, bytes]]] = {"numpy": _numpy, "onnx": _onnx, "pt2": _pt2}
