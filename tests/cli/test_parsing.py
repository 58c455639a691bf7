"""From words to values, and from the types of a command's fields to its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest

from stoker.cli.options import Flag
from stoker.cli.parsing import Command, RunPath
from stoker.cli.train import Train
from stoker.errors import ConfigError
from stoker.settings import Count


class Words(Command, frozen=True, kw_only=True):
    """Do something.

    With a second paragraph that is long enough to be wrapped on a terminal of forty columns.
    """

    run: RunPath
    """The run's directory, or that of a version or name: then its newest run."""

    others: Annotated[tuple[str, ...], Flag(metavar="OTHER", is_positional=True, repeats=True)] = ()
    """More of them."""

    sizes: tuple[Count, ...] = (64, 64)
    """Sizes."""

    rate: float | None = None
    """The rate."""

    kind: Literal["one", "two"] = "one"
    """The kind."""

    is_fast: bool = True
    """Whether it is fast."""

    total_count: Annotated[int, Flag(short="-n")] = 5
    """How many."""

    async def __call__(self) -> int:
        return 0


def test_words_become_values() -> None:
    for words, expected in (
        (["x"], {}),
        (["x", "y", "z"], {"others": ("y", "z")}),
        (["--", "-x", "--rate"], {"run": "-x", "others": ("--rate",)}),
        (["--sizes", "1", "2", "--rate", "-1e3", "x"], {"sizes": (1, 2), "rate": -1000.0}),
        (["x", "--sizes"], {"sizes": ()}),
        (["--sizes", "3", "--", "x"], {"sizes": (3,)}),
        (["x", "--rate=-inf", "--kind=two"], {"rate": -float("inf"), "kind": "two"}),
        (["x", "--rate", "-inf", "--rate", "None"], {"rate": None}),
        (["x", "--no-is-fast"], {"is_fast": False}),
        (["x", "--no_is_fast", "--is_fast"], {"is_fast": True}),
        (["-n", "1_000", "x", "-n", "-7"], {"total_count": -7}),
        (["x", "--total_count=1_000"], {"total_count": 1000}),
    ):
        assert Words.from_words("do", words) == Words(**{"run": "x", **expected}), words


def test_what_does_not_fit_is_named() -> None:
    for words, said in (
        ([], "name a run, such as `stoker do runs/CartPole-v1`"),
        (["x", "-n"], "-n: give INT behind it"),
        (["x", "--rate", "--kind"], "--rate: give FLOAT|none behind it, not '--kind'"),
        (["x", "-n", "1.0"], "-n 1.0: give an int"),
        (["x", "-n5"], "unknown flag -n5; did you mean -n?"),
        (["x", "--sizes", "1", "0"], "--sizes 1 0: give a list, each item an int of at least 1"),
        (["x", "--kind", ""], "--kind : give 'one' or 'two'"),
        (["x", "--is-fast=false"], "--is-fast=false: --is-fast takes no value"),
        (["x", "--tc", "1"], "unknown flag --tc; did you mean --total-count?"),
        (["x", "--run", "y"], "unknown flag --run; give RUN without it (see"),
    ):
        with pytest.raises(ConfigError) as refused:
            Words.from_words("do", words)
        assert str(refused.value).startswith(said), words
        assert str(refused.value).endswith("(see `stoker do --help`)")


@pytest.mark.parametrize("columns", [1, 40, 79, 500])
def test_help_names_each_value_and_its_default(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as left:
        Words.from_words("do", ["--bogus", "-h"])  # help comes before mistakes
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= max(40, min(columns, 100))
    flat = " ".join(text.split())
    assert flat.startswith("usage: stoker do RUN OTHER [--FLAG ...] Do something. With a second")
    for part in (
        "RUN The run's directory, or that of a version or name: then its newest run. (required)",
        "OTHER More of them. (default: none)",
        "--sizes [INT ...] Sizes. (default: 64 64)",
        "--rate FLOAT|none The rate. (default: none)",
        "--kind {one,two} The kind. (default: one)",
        "--is-fast, --no-is-fast Whether it is fast. (default: True)",
        "-n, --total-count INT How many. (default: 5)",
    ):
        assert part in flat


def test_assignments_are_json_or_else_text() -> None:
    words = ["a=1", "b=1e-3", "c=true", "d=False", "e=none", "f=[1, 2]", "map=8x8", "path=a=b", 'text="1"']
    config = Train.from_words("train", ["CartPole-v1", "--agent", "dqn", "--env-kwargs", *words]).training
    assert config.env_kwargs == {
        "a": 1, "b": 1e-3, "c": True, "d": False, "e": None, "f": [1, 2], "map": "8x8", "path": "a=b",
        "text": "1",
    }  # fmt: skip


def test_assignments_and_imports_take_nothing_from_the_environment_and_add_up() -> None:
    words = ["--env_kwargs", "a=1", "Pole-v1", "--import", "x", "-n", "5", "--import=y", "--env-kwargs=b=2"]
    words += ["--agent", "dqn"]
    command = Train.from_words("train", words)
    config = command.training
    assert (config.env, config.total_timesteps, config.imports) == ("Pole-v1", 5, ("x", "y"))
    assert config.env_kwargs == {"a": 1, "b": 2}
    assert command.name == "Pole-v1"
    for words in (["--env-kwargs=b"], ["--env-kwargs", "=b"]):
        with pytest.raises(ConfigError, match="write NAME=VALUE"):
            Train.from_words("train", words)


def test_the_file_holds_the_place_of_the_run_and_times_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('env = "CartPole-v1"\nname = "mine"\nruns-dir = "there"\ngrace = 5\nmax_time = "1h"\n')
    command = Train.from_words("train", ["--config", str(path), "--runs-dir", "here"])
    assert (command.name, command.runs_dir, command.grace) == ("mine", "here", "5")
    assert command.max_time == "1h"


def test_a_schedule_spans_the_training_unless_its_steps_are_given(tmp_path: Path) -> None:
    def spanned(*words: str) -> int | None:
        return Train.from_words("train", ["CartPole-v1", *words]).training.agent_settings.schedule_steps

    path = tmp_path / "own.toml"
    path.write_text("schedule_steps = 7000")
    assert spanned() == 100_000
    assert spanned("-n", "500") == 500
    assert spanned("-n", "500", "--schedule-steps", "100000") == 100_000
    assert spanned("-n", "500", "--config", str(path)) == 7000
