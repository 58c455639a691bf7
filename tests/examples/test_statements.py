"""What documents name exists: commands and flags, files, anchors, functions, attributes, make targets."""

from __future__ import annotations

import builtins
import importlib.util
import pkgutil
import re
import shlex
from functools import partial
from pathlib import Path

import anyio
import gymnasium
import pytest

import stoker
from stoker.cli import main as command_line
from stoker.cli.main import COMMANDS
from stoker.testing import ChainEnv, FakeAgent, check_recorder

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OF_A_RUN = "runs/CartPole-v1"
PLACEHOLDERS = {
    "ENV": "CartPole-v1",
    "RUN": OF_A_RUN,
    "[DIR]": "runs",
    "N": "400",
    "NAME": "other",
    "NEW": "new",
}
PLACEHOLDERS |= {
    "FILE": "curve.png",
    "FILE.toml": "settings.toml",
    "FILE.mp4": "play.mp4",
    "RUN...": OF_A_RUN,
    "MODULE": "own",
    "SOURCE": OF_A_RUN,
}
OF_GYMNASIUM = {"AsyncVectorEnv", "AtariPreprocessing", "AutoresetMode", "RecordVideo", "SyncVectorEnv"}
NOT_OURS = OF_GYMNASIUM | {
    "CancelledError",
    "CartPole",
    "CheckpointCallback",
    "CombinedExtractor",
    "QTable",  # docs/start/agent.md
    "TaskGroup",
}
NOT_OURS |= {
    "ETag",
    "HTTPRequest",
    "HttpClient",
    "TimeLimit",
}  # of HTTP, C#, Godot and the plugin of Godot RL Agents
NOT_OURS |= {"ExecStart", "PrivateDevices", "ReadOnlyPaths", "TimeoutStopSec"}  # of systemd
NOT_OURS |= set(re.findall(r"alert: (\w+)", (ROOT / "src/stoker/telemetry/alerts.yml").read_text()))
FROM_MLFLOW = {"stoker.name", "stoker.version", "stoker.run_id", "stoker.resumed_at"}  # tags
NO_MODULES = FROM_MLFLOW | {
    "stoker.calls",
    "stoker.checkpoint",
    "stoker.commit",
    "stoker.v1",
}  # of spans; a protocol


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """What stands in backticks, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


SPANS = [(page, span) for page in PAGES for span in spans(page)]


def commands(page: Path) -> list[list[str]]:
    """Every command line of ``stoker`` on a page, as words."""
    lines = [
        line for tag, code in FENCE.findall(page.read_text()) if tag == "sh" for line in code.splitlines()
    ]
    found = [line.split("  #")[0].strip() for line in lines] + spans(page)
    return [shlex.split(line)[1:] for line in found if re.match(r"stoker [a-z]", line)]


COMMAND_LINES = [(page, words) for page in PAGES for words in commands(page)]


def test_command_lines_have_commands_and_flags_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tables.py").write_text("class QTable:\n    ...\n")  # docs/start/agent.md has it
    helps: dict[tuple[str, ...], str] = {}
    for page, words in COMMAND_LINES:
        if words == ["sha256"]:  # not a command: what checkpoints begin their comment with
            continue
        own = [word for word in words if word.startswith("tables:")]  # its flags are not those of DQN
        called = words[: 2 if " ".join(words[:2]) in COMMANDS else 1]  # some have two words
        asked = (*called, *(["--agent", *own] if own else []), "--help")
        if asked not in helps:
            with pytest.raises(SystemExit) as left:
                command_line.main(asked)
            assert left.value.code == 0, (page, words)
            helps[asked] = capsys.readouterr().out
        known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", helps[asked]))
        assert {word for word in words if word.startswith("-")} <= known, (page, words)


def test_every_command_of_the_command_lines_page_runs_on_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of its table, each with the placeholders filled in; then two of the README's."""
    monkeypatch.chdir(tmp_path)
    shorter = ["-n", "400", "--num-envs", "2", "--eval-freq", "200", "--eval-episodes", "2", "--no-progress"]
    shorter += ["--record-freq", "100"]
    shorter += ["--learning-rate-schedule", "constant"]  # replay --verify after resume -n: see the limits
    text = (ROOT / "docs" / "command-line.md").read_text()
    rows = re.findall(r"^\| `stoker ([^`]+)` \|", text, re.MULTILINE)
    for number, row in enumerate([*rows, "replay RUN --verify", "train ENV --lockstep"]):
        named = {**PLACEHOLDERS, "PATH": f"written-{number}"}  # each writes something new
        words = [named.get(word, word) for word in shlex.split(row)]
        if words[0] in ("serve", "actor", "dash"):  # they end when they are stopped: see the tests of each
            continue
        if words[0] == "stop":  # it needs a cluster with a learner: see tests/distributed/test_learner.py
            continue
        more = {"train": shorter, "resume": ["-n", "600", "--no-progress"], "eval": ["--episodes", "1"]}
        assert command_line.main([*words, *more.get(words[0], [])]) == 0, (row, capsys.readouterr().err)
    assert (tmp_path / "curve.png").stat().st_size > 1_000


def test_the_make_targets_that_they_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets, page


def test_the_files_that_they_name_exist() -> None:
    for page, span in SPANS:
        if re.fullmatch(r"[\w/]+/\w+\.(py|md|toml|ipynb)", span):
            bases = (ROOT, ROOT / "src/stoker", page.parent)
            assert any((base / span).exists() for base in bases), (page, span)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_anchors_that_they_link_to_exist() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
            if not target.startswith("https://"):
                known = anchors((page.parent / target).resolve() if target else page)
                assert anchor in known, (page, target, anchor)


@pytest.fixture(scope="module")
def public_names() -> set[str]:
    """What the modules of stoker export, and Python's own names."""
    found = set(stoker.__all__) | set(dir(builtins)) | NOT_OURS
    for module in pkgutil.walk_packages(stoker.__path__, "stoker."):
        if not module.name.rpartition(".")[2].startswith("_"):
            found |= {name for name in dir(importlib.import_module(module.name)) if not name.startswith("_")}
    return found


def test_the_classes_that_they_name_exist(public_names: set[str]) -> None:
    for page, span in SPANS:
        for name in re.findall(r"(?<![\w./\"'<-])([A-Z][a-z]+[A-Z]\w*|[A-Z]{2,}\w*[a-z]\w*)\b(?![/-])", span):
            assert name in public_names, (page, span)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    run = anyio.run(partial(stoker.TrainingRun.create, "named", root=tmp_path_factory.mktemp("runs")))
    session = stoker.TrainingSession(FakeAgent(), run)
    trainer = stoker.Trainer(FakeAgent(), ChainEnv, stoker.TrainerConfig(max_steps=1))
    return {
        "run": run,
        "session": session,
        "trainer": trainer,
        "evaluator": stoker.Evaluator(session, ChainEnv, stoker.EvaluationSettings(n_episodes=1)),
    }


def test_the_attributes_that_they_name_exist(objects: dict[str, object]) -> None:
    for page, span in SPANS:
        for owner, name in re.findall(r"(?<![\w.])(session|run|trainer|evaluator)\.(\w+)(?!\w*\.py)", span):
            assert name in dir(objects[owner]), (page, span)  # hasattr would read a property
        for path in re.findall(r"(?<![\w./])stoker\.[\w.]*\w", span):
            if path not in NO_MODULES:
                parent, _, name = path.rpartition(".")
                found = hasattr(importlib.import_module(parent), name) or importlib.util.find_spec(path)
                assert found, (page, span)


def test_names_of_gymnasium_are_gymnasiums() -> None:
    for name in OF_GYMNASIUM:
        assert hasattr(gymnasium.vector, name) or hasattr(gymnasium.wrappers, name), name


def blocks(page: str, language: str) -> list[str]:
    return [code for tag, code in FENCE.findall((ROOT / "docs" / page).read_text()) if tag == language]


def test_the_toml_of_the_page_is_a_trainers_config(tmp_path: Path) -> None:
    (tmp_path / "trainer.toml").write_text(blocks("training.md", "toml")[0])
    config = stoker.TrainerConfig.load(tmp_path / "trainer.toml")
    assert (config.max_opts, config.actors, config.evaluation.patience) == (50_000, "threads", 5)


def test_the_recorder_of_the_page_keeps_a_recorders_promises() -> None:
    (code,) = [code for code in blocks("recorders.md", "python") if "class PrintingRecorder" in code]
    names: dict[str, type] = {}
    exec(code, names)
    check_recorder(names["PrintingRecorder"])


def test_each_answer_runs_or_leads_to_a_page() -> None:
    answers = re.split(r"^### ", (ROOT / "docs" / "faq.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(answers) >= 15
    for answer in answers:
        assert re.search(r"\]\((?!https://)|^```", answer, re.MULTILINE), answer.splitlines()[0]
