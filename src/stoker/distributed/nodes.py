"""What Ray says of processes and nodes, in the words of a training."""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path

from stoker.distributed.reaching import check_reachable
from stoker.errors import ConfigError
from stoker.importing import required

_ray = required("ray", "ray")


def whereabouts() -> tuple[str, str, str]:
    """The node's id and address of a process that Ray started, and the file of its standard error."""
    output_path = ""
    with contextlib.suppress(OSError):  # there is no /proc
        output_path = str(Path("/proc/self/fd/2").readlink())
    return _ray.get_runtime_context().get_node_id(), _ray.util.get_node_ip_address(), output_path


def node_answers(node_id: str, timeout_s: float) -> bool:
    """Whether Ray's own process on a node answers. Blocks, for that time at most once the node is known.

    No task is started for it: a task may need a new Python process, whose start takes longer than that where
    environments use all CPUs.
    """
    try:
        check_reachable(*_raylet_of(node_id), timeout_s)
    except (OSError, _ray.exceptions.RayError):
        return False
    return True


@functools.cache
def _raylet_of(node_id: str) -> tuple[str, int]:
    for node in _ray.nodes():
        if node["NodeID"] == node_id:
            return node["NodeManagerAddress"], node["NodeManagerPort"]
    raise OSError(f"the cluster has no node {node_id}")


def refusal_of(error: BaseException) -> ConfigError | None:
    """Why a process could not start, if another one would fail in the same way."""
    text = str(error)
    if isinstance(error, _ray.exceptions.RuntimeEnvSetupError) or "creation task" in text:
        reason = text.strip().splitlines()[-1]
        node = re.search(r"\bip=([^,)]+)", text)
        where = "the cluster" if node is None else f"node {node[1]}"
        refusal = ConfigError(
            f"a worker cannot start on {where} ({reason}): stoker and what it needs must be installed on "
            "each node, in the Python that Ray uses there"
        )
        refusal.add_note(text)
        return refusal
    return None


def words_of(error: BaseException) -> str:
    """Why a call of a process failed, in a few words."""
    text = str(error)
    if isinstance(error, _ray.exceptions.OutOfMemoryError) or "memory monitor" in text:
        return "its node ran out of memory, and Ray ended its process"
    if re.search(r"node (died|was (dead|marked dead))|[Nn]ode.*(dead|terminated)|NODE_DIED", text):
        return "its node has left the cluster"
    if "connection error code" in text:
        return "its process was killed or has crashed"
    if isinstance(error, _ray.exceptions.RayActorError):
        detail = re.search(r"(?:exit detail|cause): (.*?)(?:\. Some common causes|$)", text, re.DOTALL)
        return f"its process has ended ({' '.join(detail[1].split())})" if detail else "its process has ended"
    return f"its process failed ({type(error).__name__}: {text.strip().splitlines()[-1]})"
