"""``stoker serve`` and ``stoker token``: what they refuse before anything is served, and what they print."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from stoker import TrainConfig, TrainingRun
from stoker.cli.serve import Serve
from stoker.cli.served import ServedTraining
from stoker.protocol import Spaces, difference
from stoker.service.tokens import Tokens

SPACES = {
    "observation": {"type": "box", "shape": [2], "dtype": "float32", "low": -1, "high": 1},
    "action": {"type": "discrete", "n": 3},
}


@pytest.fixture
def spaces(tmp_path: Path) -> Path:
    path = tmp_path / "spaces.json"
    path.write_text(json.dumps(SPACES), "utf-8-sig")  # as editors of other systems save it
    return path


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--env CartPole-v1, --spaces FILE.json, and --spaces-from-client"),
        (["--env", "CartPole-v1", "--spaces", "spaces.json"], "--env and --spaces"),
        (["--spaces-from-client"], "--agent"),
        (["--env", "Nowhere-v0"], "Nowhere-v0"),
        (["--spaces", "nowhere.json"], "--spaces nowhere.json: No such file"),
        (["--spaces", "broken.json"], "--spaces broken.json"),
        (["--spaces", "spaces.json", "--agent", "sac"], "Discrete"),
        (["--spaces", "spaces.json", "--num-envs", "4"], "--num-envs"),
        (["--spaces", "spaces.json", "--agent", "ppo", "--buffer-size", "9"], "--buffer-size"),
        (["--spaces", "spaces.json", "--host", "0.0.0.0"], "--token-file"),
        (["--spaces", "spaces.json", "--host", "192.0.2.1", "--insecure"], "no such address"),
        (["--spaces", "spaces.json", "--token-file", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--spaces", "spaces.json", "--token-file", "broken.toml"], "broken.toml: token 1"),
        (["--spaces", "spaces.json", "--tls-key", "key.pem"], "--tls-cert"),
        (["--spaces", "spaces.json", "--tls-cert", "broken.toml"], "--tls-cert broken.toml"),
        (["--spaces", "spaces.json", "--max-wait", "soon"], "--max-wait"),
        (["--spaces", "spaces.json", "--port", "70000"], "--port"),
    ],
)
def test_a_mistake_is_one_line_and_serves_nothing(
    command: Callable[..., Any], spaces: Path, words: list[str], named: str
) -> None:
    (spaces.parent / "broken.json").write_text('{"observation": {"type": "ball"}, "action": {}}')
    (spaces.parent / "broken.toml").write_text('[[token]]\nname = "x"\nsha256 = "abc"\n')
    done = command("serve", "--port", "0", *words)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("stoker: error: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert not (spaces.parent / "runs").exists()


def test_a_taken_port_names_who_has_it(command: Callable[..., Any], spaces: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = command("serve", "--spaces", "spaces.json", "--port", str(port))
    assert done.returncode == 2
    assert f"--port {port}: process " in done.stderr
    assert not (spaces.parent / "runs").exists()


def test_a_run_of_other_spaces_is_refused_with_the_path(
    command: Callable[..., Any], spaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spaces.parent)

    async def make(version: str, config: TrainConfig) -> None:
        run = await TrainingRun.create("spaces", version)
        await run.write_config(config)
        run.release()

    other = {**SPACES, "action": {"type": "discrete", "n": 4}}
    anyio.run(make, "other", TrainConfig(env="", agent="dqn", spaces=other))
    anyio.run(make, "ppo", TrainConfig(env="", agent="ppo", spaces=SPACES))
    anyio.run(make, "trained", TrainConfig(env="CartPole-v1", agent="dqn"))
    for version, named in (
        ("other", "action.n is 4 there and 3 here"),
        ("ppo", "agent='ppo', not 'dqn'"),
        ("trained", "not made by `stoker serve`"),
    ):
        done = command("serve", "--spaces", "spaces.json", "--port", "0", "--run-version", version)
        assert done.returncode == 2
        assert named in done.stderr
        assert "--run-version" in done.stderr


def test_a_run_that_another_process_has_is_not_said_to_be_served(
    command: Callable[..., Any], spaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spaces.parent)

    async def make() -> TrainingRun:
        run = await TrainingRun.create("spaces", "served")
        await run.write_config(TrainConfig(env="", agent="dqn", spaces=SPACES))
        return run

    run = anyio.run(make)
    done = command("serve", "--spaces", "spaces.json", "--port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is being written by process" in done.stderr
    run.release()


def test_resume_names_the_command_that_continues_a_served_run(
    command: Callable[..., Any], spaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spaces.parent)

    async def make() -> None:
        run = await TrainingRun.create("game", "served")
        await run.write_config(TrainConfig(env="", agent="dqn", spaces=SPACES))
        run.release()

    anyio.run(make)
    done = command("resume", "runs/game")
    assert done.returncode == 2
    assert "stoker serve --spaces FILE.json --name game --run-version served" in done.stderr


def test_the_help_has_the_settings_of_the_agent(command: Callable[..., Any]) -> None:
    with pytest.raises(SystemExit) as left:
        command("serve", "--env", "CartPole-v1", "--agent", "ppo", "--help")
    assert left.value.code == 0


@pytest.mark.parametrize(
    ("words", "spanned", "said"),
    [
        ([], 100_000, "learns   for 100,000 steps; then the learning rate is 0"),
        (["--schedule-steps", "700"], 700, "learns   for 700 steps"),
        (["-n", "5000"], 5_000, None),
        (["--learning-rate-schedule", "constant"], 100_000, None),
    ],
)
def test_a_schedule_falls_also_in_a_training_without_an_end(
    words: list[str], spanned: int, said: str | None
) -> None:
    """It spans what it spans in the preset; with an end it spans the training, as in ``stoker train``."""
    asked = Serve.from_words("serve", ["--env", "CartPole-v1", *words])
    assert asked.training is not None
    assert asked.training.agent_settings.schedule_steps == spanned
    [_, *lines] = ServedTraining(asked.training, None, asked.total_timesteps).lines
    assert len(lines) == (said is not None)
    assert all(line.startswith(said or "") for line in lines)


def test_a_token_is_shown_once_and_its_entry_lets_it_in(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("token", "game", "--actors", "npc-", "--rate", "5", "--scopes", "act")
    assert done.returncode == 0
    token = done.stderr.split()[-1]
    assert token not in done.stdout
    path = tmp_path / "tokens.toml"
    path.write_text(done.stdout + command("token", "other").stdout)
    path.chmod(0o600)
    tokens = Tokens.from_file(path)
    principal = tokens.principal_of(token)
    assert principal is not None
    assert (principal.name, principal.actors, principal.rate, principal.scopes) == (
        "game",
        "npc-",
        5.0,
        ("act",),
    )
    assert tokens.principal_of(token + "x") is None
    assert command("token", "game", "--scopes", "fly").returncode == 2


def test_a_token_file_that_others_can_read_is_warned_about(
    command: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(command("token", "game").stdout)
    for mode, readers in ((stat.S_IRUSR, None), (0o640, "its group"), (0o644, "all users")):
        path.chmod(mode)
        caplog.clear()
        Tokens.from_file(path)
        assert (caplog.text == "") if readers is None else (f"chmod 600 {path}" in caplog.text)
        assert readers is None or readers in caplog.text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "[[token]]"),
        ("[token]\n", "[[token]]"),
        ('key = 1\n[[token]]\nname="a"\nsha256="%s"' % ("0" * 64), "besides key"),
        ('[[token]]\nname = "a"\n', "name and a sha256"),
        ('[[token]]\nname = "a"\nsha256 = "%s"\nscopes = ["fly"]\n' % ("0" * 64), "scopes"),
        ('[[token]]\nname = "a"\nsha256 = "%s"\n' % ("0" * 64) * 2, "twice"),
        ("[[token]\n", "not TOML"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, named: str) -> None:
    from stoker import ConfigError

    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        Tokens.from_file(path)
    assert named in str(refused.value)
    assert str(path) in str(refused.value)


def test_spaces_that_a_client_said_are_known_at_the_next_start(
    spaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spaces.parent)
    config = TrainConfig(env="", agent="dqn")

    async def find() -> Any:
        return await ServedTraining.find(config, Path("runs"), "game", "served", max_steps=None)

    async def said() -> None:
        served = await find()
        assert served.spaces is None
        await served.begin(Path("runs"), "game", "served")
        async with served.session(*msgspec.convert(SPACES, Spaces).gymnasium()):
            pass

    anyio.run(said)
    served = anyio.run(find)
    assert difference(served.spaces, msgspec.convert(SPACES, Spaces)) is None
