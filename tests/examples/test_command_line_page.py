"""docs/command-line.md names every command and every flag, with the default that the help shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stoker
from stoker.cli import main as command_line

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command-line.md").read_text()
OF_AN_AGENT = {"--" + name.replace("_", "-") for name in stoker.DQNConfig.__struct_fields__}
FLAG = r"(?<![\w-])--?[a-z][a-z-]*"


def section(command: str) -> str:
    return PAGE.split(f"\n## stoker {command}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[tuple[list[str], str]]:
    """The names of each row of the tables, and its default."""
    found = re.findall(r"^\| (`.*?) \| .* \| (.*?) \|$", text, re.MULTILINE)
    return [(re.findall(r"`(\[?[\w-]+\]?)", names), default) for names, default in found]


def help_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        command_line.main([*command.split(), "--help"])
    return capsys.readouterr().out


def defaults(text: str) -> dict[str, str]:
    """What the help shows behind the text of each flag or place, by its first name."""
    entries = re.findall(r"^  (\S.*\n(?:   .*\n)*)", text.split("\n\n", 2)[-1], re.MULTILINE)
    plain = [" ".join(entry.split()) for entry in entries]
    shown = [re.match(r"(\S+?),? .*\((?:default: )?((?:[^()]|\([^()]*\))*)\)$", entry) for entry in plain]
    return {entry[1]: re.sub("- (?=[a-z])", "-", entry[2]) for entry in shown if entry}


def test_it_has_every_command_in_the_table_and_as_a_section() -> None:
    names = list(command_line.COMMANDS)
    table = re.findall(r"^\| `stoker ((?:data )?[a-z]+)", PAGE, re.MULTILINE)
    assert table == re.findall(r"^## stoker (.*)$", PAGE, re.MULTILINE) == names


@pytest.mark.parametrize("command", command_line.COMMANDS)
def test_a_section_has_each_flag_of_its_command_with_the_default(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(command, capsys, monkeypatch)
    takes = set(re.findall(r"^  .*?(?=  |$)", text, re.MULTILINE))
    known = {flag for line in takes for flag in re.findall(FLAG, line)} - {"-h", "--help"}
    if command in ("train", "serve"):
        known -= OF_AN_AGENT
    shared = section(command).partition("\nAs for `stoker train`: ")[2]
    named = {name for names, _ in rows(section(command)) for name in names if name.startswith("-")}
    named |= set(re.findall(r"`(--[a-z-]+)`", shared))
    assert {name for name in known if not name.startswith("--no-")} == {
        name for name in named if not name.startswith("--no-")
    }
    assert named <= known
    says = defaults(text)
    for names, default in rows(section(command)):
        assert default == says[names[0]], names


def test_its_file_of_settings_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [settings] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "settings.toml").write_text(settings)
    shown = defaults(help_of(f"train --config {tmp_path}/settings.toml", capsys, monkeypatch))
    assert (shown["-n"], shown["--num-envs"]) == ("20000", "4")
    assert (shown["--learning-rate"], shown["--hidden-sizes"]) == ("0.001", "32 32")
