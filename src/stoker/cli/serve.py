"""``stoker serve``: an agent that learns from remote actors, in any language, over HTTP and WebSocket."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import anyio
import msgspec
from anyio import to_thread
from msgspec import Meta

from stoker.agents.registry import AGENTS, agent_for_actions
from stoker.cli.help import leave_with_help
from stoker.cli.limits import seconds
from stoker.cli.options import Flag, options_of
from stoker.cli.parsing import Command, Which, given_values
from stoker.cli.training_flags import (
    FLAGS,
    OwnSettings,
    options_of_agents,
    settings_type,
    values_of_file,
    without_help,
)
from stoker.errors import ConfigError
from stoker.listening import is_loopback, listening_socket, url_of
from stoker.runs.layout import safe_name
from stoker.runs.status import ENDLESS_STEPS
from stoker.settings import Count, Port, settings_from
from stoker.signals import ENDING_SIGNALS, SignalGuard
from stoker.trainer.config import TrainConfig, config_from

if TYPE_CHECKING:
    import socket

    from starlette.applications import Starlette

    from stoker.cli.served import ServedPolicy, ServedTraining
    from stoker.protocol import Spaces
    from stoker.service.auth import Gate
    from stoker.service.hosting import Hosted
    from stoker.service.limits import Limits
    from stoker.service.serving import Tls

_SETTINGS = (
    "agent", "imports", "env_kwargs", "wrappers", "seed", "checkpoint_freq", "keep_checkpoints", "keep_every",
    "keep_journal", "record_freq", "track", "device", "opt_interval", "warmup_period", "queue_capacity",
    "stall_timeout_s", "torch_threads", "warm_data", "mix",
)  # fmt: skip
"""The settings of ``stoker train`` that are not about its own environments."""

_FLAGS = FLAGS | {"agent": Flag(default="default: dqn, sac or ppo, by the actions")}
_LEARNING = (
    "env", "spaces", "spaces_from_client", "total_timesteps", "name", "run_version", "runs_dir", "dash",
)  # fmt: skip
"""Flags that mean nothing with a fixed policy."""
_DEFAULTS = {"num_envs": 1, "vectorize": "none", "queue_capacity": 256}
"""Where they differ from those of ``stoker train``: actors come and go, and each waits for its answer."""

_FILES = 1024
"""Open files that the process may need beside one for each WebSocket."""


class Serve(Command, frozen=True, kw_only=True):
    """Learn from remote actors: programs in any language, which send records of steps and get actions.

    Name the actors' spaces by --env, --spaces or --spaces-from-client. Started again with the same flags, it
    continues its run by itself. SIGTERM or Ctrl-C answers what is in flight, saves and exits; a second one
    exits at once. docs/protocol.md shows how to write a client.
    """

    env: Annotated[str, Flag(metavar="ENV")] = ""
    """Take the spaces, and the presets, of this environment: a Gymnasium id, module:id or module:factory."""

    spaces: Annotated[str, Flag(metavar="FILE.json")] = ""
    """Take the spaces from this file: {"observation": {"type": "box", ...}, "action": {...}}."""

    spaces_from_client: bool = False
    """Take the spaces from the hello of the first client, or of the first Godot game; needs --agent."""

    policy: Annotated[str, Flag(metavar="RUN|FILE")] = ""
    """Answer with the policy of a run, its newest best one, or of `stoker export`, and learn nothing."""

    which: Which = None
    """With --policy: which one of the run."""

    godot_port: Annotated[Port | None, Flag(metavar="PORT", default="default: none")] = None
    """Also listen on this loopback port for games with the plugin of Godot RL Agents, which take 11008."""

    host: Annotated[str, Flag(metavar="HOST")] = "127.0.0.1"
    """The address to listen on; any but this machine's loopback needs --token-file."""

    port: Port = 8000
    """The port to listen on; 0: any free one."""

    dash: bool = False
    """Also show the runs of --runs-dir in a browser, at /dash, to whom the service lets in."""

    token_file: Annotated[str, Flag(metavar="FILE.toml")] = ""
    """Who may connect: names, hashes and scopes of tokens; `stoker token NAME` prints an entry."""

    insecure: bool = False
    """Listen on any address without tokens: everybody who reaches it may play and end actors."""

    tls_cert: Annotated[str, Flag(metavar="FILE.pem")] = ""
    """Serve https and wss with this certificate."""

    tls_key: Annotated[str, Flag(metavar="FILE.pem", default="default: in --tls-cert")] = ""
    """The key of the certificate."""

    allowed_hosts: Annotated[
        tuple[str, ...],
        Flag(name="allowed-host", metavar="NAME", repeats=True, default="default: loopback; with tokens any"),
    ] = ()
    """A name or address under which clients may call this service."""

    allowed_origins: Annotated[
        tuple[str, ...],
        Flag(name="allowed-origin", metavar="URL", repeats=True, default="default: its own host"),
    ] = ()
    """A site whose pages may call this service from a browser, such as https://game.example."""

    max_wait: Annotated[str, Flag(metavar="TIME")] = "10s"
    """How long a message may wait for the learner; then it is refused, to be sent again."""

    actor_timeout: Annotated[str, Flag(metavar="TIME")] = "5m"
    """Abandon the episode of an actor that is silent for this long; its numbers stay."""

    max_actors: Annotated[int, Meta(ge=1, le=10_000)] = 4096
    """The most actors that have a stream at the same time."""

    max_connections: Count = 1024
    """The most WebSockets at the same time."""

    max_message_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 1 << 20
    """The largest message."""

    total_timesteps: Annotated[Count | None, Flag(short="-n", metavar="INT", default="default: no end")] = (
        None
    )
    """Environment steps to learn from; then records are refused, and the policy stays as it is. Without an
    end, the linear schedules of a preset span as many steps as in the preset; then the learning rate is 0."""

    grace: Annotated[str, Flag(metavar="TIME")] = "30s"
    """How long ending may take after Ctrl-C or SIGTERM; then the process leaves with exit code 1."""

    name: Annotated[str, Flag(metavar="NAME", default="default: the environment's, or the file's")] = ""
    """Name of the run."""

    run_version: Annotated[str, Flag(metavar="VERSION")] = "served"
    """Version of the run: runs go to RUNS-DIR/NAME/VERSION."""

    runs_dir: Annotated[str, Flag(metavar="DIR")] = "runs"
    """The directory of all runs."""

    config: Annotated[str, Flag(metavar="FILE.toml")] = ""
    """A file of settings, named like these flags; those of the agent may be in a table [agent_settings]."""

    training: TrainConfig | None = None
    """The settings of the training, from flags, file, preset and defaults; with the spaces, if known. None: a
    fixed policy answers."""

    @classmethod
    def from_words(cls, name: str, words: Sequence[str]) -> Self:
        """As for any command; the agent adds its settings to the flags, as it does for ``stoker train``."""
        given, wants_help = without_help(words)
        common = [option for option in options_of(TrainConfig, **_FLAGS) if option.field in _SETTINGS]
        options = [*options_of(cls), *common]
        try:
            found = given_values(name, [*options, *options_of_agents(), *options_of(OwnSettings)], given)
        except ConfigError:
            if not wants_help:
                raise
            found = {}
        path = found.get("config", "")
        where = f"--config {path}" if path else name
        values = values_of_file(path, ("import", "wrapper", "allowed_host", "allowed_origin")) | found
        if values.get("policy") and not wants_help:
            return settings_from(_of_a_policy(cls, values), cls, where)
        if "which" in values and not wants_help:
            raise ConfigError("--which: it chooses a policy of --policy RUN: give that, too")
        spaces = None if wants_help else _spaces(name, values)
        agent = values.get("agent") or _fitting(spaces)
        options += options_of(settings_type(agent))
        if not wants_help:
            given_values(name, options, given)  # refuses the settings of other agents
        own = {key: values.pop(key) for key in cls.__struct_fields__ if key in values}
        plain = None if spaces is None else msgspec.to_builtins(spaces)
        filled = {**_DEFAULTS, **values, "env": own.get("env", ""), "agent": agent, "spaces": plain}
        if (steps := own.get("total_timesteps")) is not None:
            filled["total_timesteps"] = steps
        training = config_from(filled, where)
        if steps is None:
            training = msgspec.structs.replace(training, total_timesteps=ENDLESS_STEPS)
        stem = Path(own["spaces"]).stem if own.get("spaces") else "remote"
        own["name"] = own.get("name") or (safe_name(training.env) if training.env else stem)
        command = settings_from({**own, "training": training}, cls, where)
        if wants_help:
            leave_with_help(name, cls, options, training, command, training.agent_settings)
        return command

    async def __call__(self) -> int:
        from stoker.cli.dash import shown_at
        from stoker.cli.served import ServedPolicy, ServedTraining
        from stoker.service.app import make_app
        from stoker.service.godot import serve_games
        from stoker.service.serving import Server

        limits, grace_s = self._limits(), seconds("--grace", self.grace)
        gate = await to_thread.run_sync(self._gate)
        tls = self._tls()
        _raise_file_limit(self.max_connections + _FILES)
        place = Path(self.runs_dir), self.name, self.run_version
        served = (
            await to_thread.run_sync(ServedPolicy, self.policy, self.which)
            if self.training is None
            else await ServedTraining.find(self.training, *place, max_steps=self.total_timesteps)
        )
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(listening_socket(self.host, self.port))
            games = None
            if self.godot_port is not None:
                games = stack.enter_context(listening_socket("127.0.0.1", self.godot_port, "--godot-port"))
            app = make_app(served.session, spaces=served.spaces, gate=gate, limits=limits)
            hosted: Hosted = app.state.stoker
            server = Server(app, limits, tls)
            hosted.on_end = server.end
            await served.begin(*place)
            dashboard = await self._dashboard(gate) if self.dash else None
            if dashboard is not None:
                app.mount("/dash", dashboard)
                server.end_with(dashboard.state.stoker)
            guard = stack.enter_context(_Guard(grace_s, hosted))
            guard.finish_with(partial(guard.end, server.end))
            scheme = "http" if tls is None else "https"
            address = url_of(self.host, listener.getsockname()[1], scheme=scheme)
            print("\n".join(_greeting(address, served, gate, games)), flush=True)
            gc.freeze()  # a full collection, which stops the event loop, leaves out what stays
            async with anyio.create_task_group() as tasks, contextlib.AsyncExitStack() as lifespans:
                if games is not None:
                    tasks.start_soon(serve_games, games, hosted.service_for, limits)
                if dashboard is not None:
                    await lifespans.enter_async_context(shown_at(dashboard, f"{address}/dash/"))
                await server.serve_on(listener)
                tasks.cancel_scope.cancel()
        if hosted.failure is not None:
            if hosted.session is None:
                await served.discard()
            raise hosted.failure from hosted.failure.__cause__
        session = hosted.session
        if session is None:
            print("stopped before the session was open; nothing was lost")
        else:
            print(served.farewell(f"{session.total_steps:,} steps, {session.total_episodes:,} episodes"))
        return 0

    async def _dashboard(self, gate: Gate) -> Starlette:
        from stoker.cli.dash import dashboard_over

        return await dashboard_over(Path(self.runs_dir), gate, needs_login=gate.has_tokens)

    def _limits(self) -> Limits:
        from stoker.service.limits import Limits

        return Limits(
            message_bytes=self.max_message_bytes,
            actors=self.max_actors,
            connections=self.max_connections,
            max_wait_s=seconds("--max-wait", self.max_wait),
            actor_timeout_s=seconds("--actor-timeout", self.actor_timeout),
        )

    def _gate(self) -> Gate:
        """Who is let in. Blocks.

        Raises:
            ConfigError: The token file cannot be used, or nothing keeps strangers out.
        """
        from stoker.service.auth import Gate
        from stoker.service.tokens import Tokens

        tokens = Tokens.from_file(Path(self.token_file)) if self.token_file else None
        is_open = not is_loopback(self.host)
        if is_open and tokens is None and not self.insecure:
            raise ConfigError(
                f"--host {self.host}: others reach this address, and nothing says who may play: give "
                "--token-file (`stoker token NAME` prints an entry), or --insecure to let everybody in"
            )
        hosts = self.allowed_hosts or (("*",) if is_open or tokens is not None else ())
        return Gate(tokens, hosts, self.allowed_origins)

    def _tls(self) -> Tls | None:
        from stoker.service.serving import Tls

        if self.tls_key and not self.tls_cert:
            raise ConfigError("--tls-key: give its certificate, too, with --tls-cert")
        if not self.tls_cert:
            return None
        return Tls(Path(self.tls_cert), Path(self.tls_key) if self.tls_key else None)


class _Guard(SignalGuard):
    """Ends the service at a first signal."""

    def __init__(self, grace_s: float, hosted: Hosted) -> None:
        super().__init__(ENDING_SIGNALS, grace_s)
        self._hosted = hosted

    def end(self, end_server: Callable[[], object]) -> None:
        """Answer what is in flight, save, and end; called on the event loop."""
        if (note := getattr(self._hosted.session, "note_signal", None)) is not None:
            note(signal.Signals(self.first).name)
        if self._hosted.policies is not None:
            self._hosted.policies.close()  # or clients that wait for a newer one would hold up the end
        print("ending: answering what is in flight, and saving", file=sys.stderr, flush=True)
        self.announced()
        end_server()

    def overdue(self, *, loop_turns: bool) -> str:
        return f"stoker: error: --grace of {self.grace_s:g} s is over: {self._stuck(loop_turns=loop_turns)}"

    def interrupted(self) -> str:
        return "stoker: interrupted; what was durable is safe, and the same command continues"

    def _stuck(self, *, loop_turns: bool) -> str:
        if self._hosted.session is None:
            return "the session is still opening its run"
        health = getattr(self._hosted.session, "health", None)
        if health is None:
            return "a request is still being answered"
        from stoker.session.watching import stuck_line

        return stuck_line(health, loop_turns=loop_turns)


def _greeting(
    address: str, served: ServedTraining | ServedPolicy, gate: Gate, games: socket.socket | None
) -> list[str]:
    """The lines that say where the service is, and what to try."""
    token = ' -H "authorization: Bearer $TOKEN"' if gate.has_tokens else ""
    godot = [] if games is None else [f"  {'games':<8} 127.0.0.1:{games.getsockname()[1]}  (Godot RL Agents)"]
    return [
        f"serving {served.what}",
        f"  {'address':<8} {address}  (WebSocket: {address.replace('http', 'ws', 1)}/v1/stream)",
        *godot,
        *(f"  {line}" for line in served.lines),
        f"  {'try':<8} curl{token} {address}/v1/spec",
    ]


def _of_a_policy(kind: type[Serve], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values for a service of a fixed policy.

    Raises:
        ConfigError: One of them is about learning.
    """
    for key in values:
        if key in _LEARNING or key not in kind.__struct_fields__:
            raise ConfigError(f"--{key.replace('_', '-')}: with --policy nothing is learned: leave it out")
    return values


def _spaces(command: str, values: Mapping[str, Any]) -> Spaces | None:
    """The spaces that the flags name; None: the first client says them.

    Raises:
        ConfigError: They name none or several, or these cannot be used.
    """
    from stoker.protocol import Spaces

    ways = [name for name in ("env", "spaces", "spaces_from_client") if values.get(name)]
    if len(ways) != 1:
        flags = " and ".join("--" + way.replace("_", "-") for way in ways)
        given = f"{flags}: " if ways else ""
        raise ConfigError(
            f"{given}say what the actors play by one of --env CartPole-v1, --spaces FILE.json, and "
            f"--spaces-from-client (see `stoker {command} --help`)"
        )
    if ways == ["spaces_from_client"]:
        if not values.get("agent"):
            raise ConfigError("--spaces-from-client: name the agent, too, such as --agent dqn")
        return None
    if ways == ["spaces"]:
        return _read_spaces(Path(values["spaces"]))
    from stoker.trainer.making import spaces_for

    known = {name: value for name, value in values.items() if name in TrainConfig.__struct_fields__}
    return Spaces.of(*spaces_for(config_from({**known, "agent": next(iter(AGENTS))}, command)))


def _read_spaces(path: Path) -> Spaces:
    from stoker.protocol import Spaces

    try:
        spaces = msgspec.json.decode(path.read_bytes().decode("utf-8-sig"), type=Spaces)
        spaces.gymnasium()
    except OSError as error:
        raise ConfigError(f"--spaces {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"--spaces {path}: {error}") from error
    return spaces


def _fitting(spaces: Spaces | None) -> str:
    """The agent where none is named."""
    if spaces is None:
        return next(iter(AGENTS))
    return agent_for_actions(spaces.gymnasium()[1])


def _raise_file_limit(wanted: int) -> None:
    """Let the process open that many files, or as many as it may, where the system has such a limit."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
