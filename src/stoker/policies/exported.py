"""Exported policies, loaded again: what acts by numpy, by ONNX Runtime or by ``torch.export``."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_origin

import msgspec

from stoker.errors import ConfigError, InvalidExperience, MissingDependency, RunBroken
from stoker.importing import required
from stoker.policies.description import FORMAT, PolicyDescription
from stoker.policies.numpy_policy import PolicyBase, read_policy
from stoker.types import AnyPath

DESCRIPTION = "policy.json"
FILES = {"numpy": "policy.npz", "onnx": "policy.onnx", "pt2": "policy.pt2"}
"""The file of each format; the first that there is gets loaded."""
_Loaded: TypeAlias = tuple[Callable[..., Mapping[str, Any]], dict[str, Any]]
"""What computes a policy, and its description."""


class LoadedPolicy(PolicyBase):
    """A policy that acts greedily, by itself.

    Attributes:
        description: the content of policy.json: whose policy it is, what it takes and gives.
        form: what computes it: ``numpy``, ``onnx``, ``pt2``, or ``torch`` for the policy of a run.
    """

    error: type[Exception] = InvalidExperience

    def __init__(self, compute: Any, description: PolicyDescription, form: str) -> None:
        super().__init__(compute, msgspec.to_builtins(description))
        self.form = form

    def __repr__(self) -> str:
        of = self.description
        return f"<{self.form} policy of {of['run']} at {of['total_steps']} steps, for {of['env']}>"

    def act(self, observation: Any) -> Any:
        """The greedy action for one observation, as the environment takes it.

        Args:
            observation: as the environment gives it; or N at once: each of its arrays ``[N, *shape]``, which
                gives actions ``[N, *action_shape]``. With ``frame_stack`` above 1 it is the stack.

        Raises:
            InvalidExperience: It has another shape, or a part is missing; the message says what is wanted.
        """
        return super().act(observation)

    def outputs(self, observation: Any) -> dict[str, Any]:
        """All outputs for N observations, by name: the ``action``, and what was exported with it."""
        return dict(self.compute(*self.split(observation)[0]))


def load_exported(directory: Path, form: str) -> LoadedPolicy:
    """Load one of the forms in a directory that ``stoker export`` made; it raises as ``load_policy``."""
    about, path = directory / DESCRIPTION, directory / FILES[form]
    try:
        description = msgspec.json.decode(about.read_bytes(), type=PolicyDescription)
    except (OSError, msgspec.DecodeError) as error:
        raise RunBroken(about, f"cannot be read: {error}") from error
    _check_format(description.format, about)
    return LoadedPolicy(load_file(path, form).compute, description, form)


def load_file(path: Path, form: str) -> LoadedPolicy:
    """Load one file that ``stoker export`` or a service made; it raises as ``load_policy``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunBroken(path, f"cannot be read: {error}") from error
    return policy_from_bytes(content, form, path)


def policy_from_bytes(content: bytes, form: str, source: AnyPath = "the policy") -> LoadedPolicy:
    """Load the content of a policy.npz, policy.onnx or policy.pt2, each of which holds its description.

    Args:
        content: of the file.
        form: its format: ``"numpy"``, ``"onnx"`` or ``"pt2"``.
        source: where it is from, for errors.

    Raises:
        RunBroken: It is no policy, or of another version of stoker.
        ConfigError: A part of it would be unpickled.
        MissingDependency: onnxruntime is needed.
    """
    try:
        compute, about = _LOADERS[form](content)
        given = about["format"]
        description = msgspec.convert(about, PolicyDescription)
    except (ConfigError, MissingDependency):
        raise
    except Exception as error:  # each library has errors of its own
        raise RunBroken(source, f"is no policy ({type(error).__name__}: {error}); export it again") from error
    _check_format(given, source)
    return LoadedPolicy(compute, description, form)


def _check_format(given: Any, source: AnyPath) -> None:
    if given != FORMAT:
        raise RunBroken(source, f"has format {given}, this stoker reads {FORMAT}: export it again")


def _numpy(content: bytes) -> _Loaded:
    return read_policy(io.BytesIO(content))


def _onnx(content: bytes) -> _Loaded:
    onnxruntime = required("onnxruntime", "onnx")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1  # small networks: threads would wait for each other
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    inputs = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]

    def compute(*arrays: Any) -> Mapping[str, Any]:
        found = session.run(outputs, dict(zip(inputs, arrays, strict=True)))
        return dict(zip(outputs, found, strict=True))

    texts: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    fields = {field.name: field.type for field in msgspec.structs.fields(PolicyDescription)}
    plain = {name for name, kind in fields.items() if kind is str or get_origin(kind) is Literal}
    return compute, {name: text if name in plain else json.loads(text) for name, text in texts.items()}


def _pt2(content: bytes) -> _Loaded:
    import torch

    _check_pickles(content)
    kept = {DESCRIPTION: ""}
    module = torch.export.load(io.BytesIO(content), extra_files=kept).module()

    def compute(*arrays: Any) -> Mapping[str, Any]:
        with torch.no_grad():
            found: Any = module(*map(torch.as_tensor, arrays))
        return {name: tensor.numpy() for name, tensor in found.items()}

    return compute, json.loads(kept[DESCRIPTION])


_LOADERS: dict[str, Callable[[bytes], _Loaded]] = {"numpy": _numpy, "onnx": _onnx, "pt2": _pt2}


def _check_pickles(content: bytes) -> None:
    """Refuse a file of which ``torch.export.load`` would unpickle more than tensors."""
    import torch

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.endswith(".pt"):
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            elif "custom_obj" in name or (name.endswith("_config.json") and _has_pickles(archive.read(name))):
                raise ConfigError(
                    f"{name} in a policy.pt2 would be unpickled, which can run any program: refused"
                )


def _has_pickles(text: bytes) -> bool:
    entries: Any = json.loads(text)["config"]
    return any(entry.get("use_pickle") is not False for entry in entries.values())
