"""The connection to a Ray cluster, and the CPUs that its nodes have.

A process has one connection to one cluster. Those who connect share it, and the last to close it ends it;
a connection that the program made itself, with ``ray.init``, is used and never ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from stoker.distributed.reaching import accepts, check_reachable, host_and_port
from stoker.errors import ConfigError
from stoker.exits import Closing
from stoker.importing import required

_ray = required("ray", "ray")
_services, _state, _utils, _worker = (
    required(f"ray._private.{name}", "ray", "ray") for name in ("services", "state", "utils", "worker")
)
_raylet = required("ray._raylet", "ray", "ray")
_tokens: Any = getattr(_raylet, "AuthenticationTokenLoader", None)  # older ones have no tokens
"""Untyped, as most of Ray is; the private modules are those that Ray's own commands use."""


_logger = logging.getLogger("stoker.distributed")


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of a cluster."""

    node_id: str
    name: str
    """Its name, which is its address unless it was given another."""
    n_cpus: float
    """As Ray was told, or found."""
    free_cpus: float
    is_alive: bool


class Cluster(Closing):
    """A connection to a Ray cluster, made by ``connect``; usable from any thread until it is closed.

    Leaving it as a context manager closes it.
    """

    _lock: ClassVar = threading.Lock()
    _n_open: ClassVar[int] = 0
    """How many objects share the process's connection."""
    _is_ours: ClassVar[bool] = False
    """Whether ``connect`` made it, and not the program itself."""
    auth_mode_before: ClassVar[str | None] = None
    """The variable RAY_AUTH_MODE before the process's connection was made."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        """That of its head, ``HOST:PORT``."""
        self.namespace = namespace
        """Where this process's named actors are."""
        self._is_open = True

    @classmethod
    def connect(
        cls, address: str = "auto", *, timeout_s: float = 10.0, local_cpus: float | None = None
    ) -> Cluster:
        """Connect this process to a cluster. Blocks: for the event loop's sake, call it in a thread.

        Args:
            address: ``"auto"``: that of the environment variable RAY_ADDRESS, or else the cluster that
                ``ray start`` began on this machine last; ``"local"``: one on this machine that starts now and
                ends with the connection; or ``HOST:PORT`` of a cluster's head.
            timeout_s: how long to try to reach it. Starting a local one takes as long as it takes.
            local_cpus: how many CPUs a local one may hand out, rounded up; None: those of this machine.

        Raises:
            ConfigError: The cluster cannot be reached or used; the message names the address, the reason and
                the way out.
        """
        with cls._lock:
            if _ray.is_initialized():
                found = cls._here()
                cls._check_same(address, found)
            else:
                if address == "local":
                    _start_local(local_cpus)
                else:
                    _join(address, timeout_s)
                cls._n_open, cls._is_ours = 0, True
                found = cls._here()
            cls._n_open += 1
        return found

    @classmethod
    def _here(cls) -> Cluster:
        context = _ray.get_runtime_context()
        return cls(str(context.gcs_address), str(context.namespace))

    @classmethod
    def _check_same(cls, address: str, found: Cluster) -> None:
        """Whether the process's connection is to the cluster that is wanted."""
        if address in ("auto", found.address):
            return
        if address == "local":
            if cls._is_ours and cls._n_open:
                return  # started by an earlier connect; the last to close it ends it
        else:
            host, port = host_and_port(address)
            if _same_address(host, port, *host_and_port(found.address)):
                return
        raise ConfigError(
            f"cluster {address!r}: this process is connected to the cluster at {found.address}, and a "
            "process has one: give auto, or end that connection first"
        )

    def nodes(self) -> tuple[Node, ...]:
        """The machines of the cluster, also those that died. Blocks."""
        free = _state.available_resources_per_node()
        return tuple(
            Node(
                node_id=node["NodeID"],
                name=node["NodeName"] or node["NodeManagerAddress"],
                n_cpus=float(node["Resources"].get("CPU", 0.0)),
                free_cpus=float(free.get(node["NodeID"], {}).get("CPU", 0.0)),
                is_alive=node["Alive"],
            )
            for node in _ray.nodes()
        )

    def shortage(self, worker_cpus: float, n_workers: int) -> str | None:
        """Which CPUs are missing, in one sentence; None: all workers find a place now. Blocks.

        Args:
            worker_cpus: CPUs of a worker, all on one node.
            n_workers: how many workers have no place yet.
        """
        return shortage_of([node for node in self.nodes() if node.is_alive], worker_cpus, n_workers)

    def close(self) -> None:
        """End the connection, if this is the last that uses it and ``connect`` made it. Idempotent. Blocks.

        A cluster that ``connect`` started ends with it, and so does what this process has running on any.
        """
        with Cluster._lock:
            if not self._is_open:
                return
            self._is_open = False
            Cluster._n_open -= 1
            if Cluster._is_ours and Cluster._n_open == 0:
                Cluster._is_ours = False
                _shut_down()


def shortage_of(nodes: list[Node], worker_cpus: float, n_workers: int) -> str | None:
    """See ``Cluster.shortage``; ``nodes`` are alive."""
    places = sum(
        n_workers if worker_cpus <= 0 else int(node.free_cpus / worker_cpus + 1e-9) for node in nodes
    )
    if places >= n_workers:
        return None
    largest = max(nodes, key=lambda node: node.n_cpus, default=None)
    if largest is None or largest.n_cpus < worker_cpus:
        has = (
            "the cluster has no node" if largest is None else f"{largest.name} has {largest.n_cpus:g} at most"
        )
        return f"no node has the {worker_cpus:g} CPUs of a worker: {has}"
    free = [f"{node.free_cpus:g} of {node.n_cpus:g} on {node.name}" for node in nodes[:8]]
    more = [f"and {len(nodes) - 8} more nodes"] if len(nodes) > 8 else []
    waiting = "1 worker waits" if n_workers - places == 1 else f"{n_workers - places} workers wait"
    needs = "1 CPU" if worker_cpus == 1 else f"{worker_cpus:g} CPUs"
    return f"{waiting} for {needs} each; free CPUs: {', '.join(free + more)}"


# Connecting -----------------------------------------------------------------------------------------


def _start_local(cpus: float | None) -> None:
    """Start a cluster on this machine that ends with the connection to it."""
    n_cpus = os.cpu_count() or 1 if cpus is None else max(1, math.ceil(cpus))
    with _refusing("a local cluster cannot be started", _START_WAY_OUT):
        _init(address="local", num_cpus=n_cpus, include_dashboard=False)


def _join(address: str, timeout_s: float) -> None:
    """Connect to a cluster that runs."""
    found, source = _running_here() if address == "auto" else (address, "")
    host, port = host_and_port(found)
    way_out = "Give the address of a head (`ray start --head` prints it), or use --cluster local"
    with _refusing(f"the cluster at {found}{source} cannot be used", way_out):
        check_reachable(host, port, timeout_s)
        _check_token(found, timeout_s)
        if address != "auto" or source.endswith("RAY_ADDRESS"):
            _check_member(found, timeout_s)
        _init(address=address)


_MOST_ACTION_BYTES = 512
"""More than the ``struct sigaction`` of any system has."""
_AUTH_MODE = "RAY_AUTH_MODE"
_ACCESS_WAY_OUT = (
    "put the cluster's token, which `ray get-auth-token` prints on its head, into RAY_AUTH_TOKEN or into the "
    "file ~/.ray/auth_token"
)
_START_WAY_OUT = (
    "Ray gives it 30 s: if this machine is busy, try again; else see its logs in /tmp/ray/session_latest"
)


@contextlib.contextmanager
def _refusing(what: str, way_out: str) -> Generator[None]:
    """Ray's errors, which are pages long, in one line."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - Ray raises plain ones, too, such as for a node that is late
        first: BaseException = error
        while isinstance(first.__cause__, Exception):  # which has Ray's own words
            first = first.__cause__
        reason = " ".join(str(first).split()).rstrip(".") or type(first).__name__
        raise ConfigError(f"{what}: {reason}. {way_out}") from None


def _running_here() -> tuple[str, str]:
    """The cluster of ``"auto"``, and where its address is from."""
    if (named := os.environ.get("RAY_ADDRESS", "auto")) not in ("", "auto"):
        return named, ", from RAY_ADDRESS"
    # Not any other that runs here: it may be the private one of another training.
    if last := _utils.read_ray_address():
        return last, ", which was started here last"
    raise ConfigError(
        "cluster 'auto': RAY_ADDRESS is not set, and no cluster was started on this machine: start one with "
        "`ray start --head`, or use --cluster local"
    )


def _check_token(address: str, timeout_s: float) -> None:
    """Whether the cluster accepts the token of this process, or none.

    Raises:
        ConfigError: It does not, or the token that this process is to send is missing.
    """
    is_sent = os.environ.get(_AUTH_MODE, "").lower() == "token"
    headers: dict[str, str] = {}
    if is_sent and _tokens is not None:
        tokens = _tokens.instance()
        tokens.reset_cache()  # a program may have connected before with another one
        if not tokens.has_token(ignore_auth_mode=True):
            raise ConfigError(f"{_AUTH_MODE}=token, but this process has no token: {_ACCESS_WAY_OUT}")
        headers = tokens.get_token_for_http_header()
        tokens.reset_cache()  # else this process wants it of a later cluster, too, if that has none
    if accepts(*host_and_port(address), timeout_s, headers):
        return
    if not is_sent:
        raise ConfigError(
            f"the cluster at {address} wants a token: set {_AUTH_MODE}=token, and {_ACCESS_WAY_OUT}"
        )
    sources = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # in Ray's order
    source = next((name for name in sources if os.environ.get(name)), "~/.ray/auth_token")
    raise ConfigError(f"the cluster at {address} refuses the token from {source}: {_ACCESS_WAY_OUT}")


def _check_member(address: str, timeout_s: float) -> None:
    """Whether this machine is a node of the cluster, for which ``ray.init`` would wait a minute."""
    try:
        client = _raylet.GcsClient(address=address)
        nodes = client.get_all_node_info(timeout=timeout_s).values()
    except _ray.exceptions.RayError:
        raise OSError("what answers there is not the head of a Ray cluster") from None
    if not any(_is_here(node.raylet_socket_name) for node in nodes):
        raise OSError(
            f"this machine is no node of it; `ray start --address={address} --num-cpus=0` here makes it one"
        )


def _is_here(raylet_socket: str) -> bool:
    """Whether Ray's process of a node listens on this machine; every node has the same path."""
    if not Path(raylet_socket).is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.settimeout(1.0)
        probe.connect(raylet_socket)
        return True
    return False


def _init(**settings: Any) -> None:
    """``ray.init``, silent, with SIGTERM handled as before; what fails leaves nothing behind."""
    log = logging.getLogger("ray")
    level, handler = log.level, signal.getsignal(signal.SIGTERM)
    log.setLevel(logging.ERROR)  # the workers' words are in Ray's own logs, too
    _worker.print_to_stdstream = _note  # else on standard output, where a program's own results are
    Cluster.auth_mode_before = os.environ.get(_AUTH_MODE)
    try:
        with _sigterm_kept():
            _ray.init(namespace="stoker", log_to_driver=False, configure_logging=False, **settings)
    except BaseException:
        _shut_down()
        raise
    finally:
        log.setLevel(level)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _sigterm_kept() -> Generator[None]:
    """Keep what the system does at SIGTERM; from any thread, where ``signal.signal`` cannot be called.

    Ray's native code takes the signal over: it prints a stack trace, lets Python's handler run, and aborts
    the process 3 s later, in the middle of saving.
    """
    system = ctypes.CDLL(None)
    action = ctypes.create_string_buffer(_MOST_ACTION_BYTES)
    system.sigaction(signal.SIGTERM, None, action)
    try:
        yield
    finally:
        system.sigaction(signal.SIGTERM, action, None)


def _shut_down() -> None:
    """End Ray's connection, and undo what it has put into the environment.

    It makes tokens the way of a process that starts a cluster, and of its children: a later connection to a
    cluster without tokens would be taken for a failed process.
    """
    _ray.shutdown()
    if Cluster.auth_mode_before is None:
        os.environ.pop(_AUTH_MODE, None)
    else:
        os.environ[_AUTH_MODE] = Cluster.auth_mode_before
    _raylet.Config.initialize("")


def _note(data: Mapping[str, Any], **_: Any) -> None:
    """What Ray says of its processes, to a log: that a worker ended, for one, which the place reports."""
    _logger.debug("%s", " ".join(map(str, data.get("lines", ()))))


def _same_address(host: str, port: int, other_host: str, other_port: int) -> bool:
    """Whether both name one place, as localhost and an address of this machine do."""
    if port != other_port:
        return False

    def resolved(name: str) -> str:
        with contextlib.suppress(OSError):
            name = str(socket.gethostbyname(name))
        return str(_services.resolve_ip_for_localhost(name))

    return resolved(host) == resolved(other_host)
