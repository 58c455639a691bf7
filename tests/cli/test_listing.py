"""``stoker ls``: which runs it selects, in which order, and in which groups."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.listing import Condition, Listed, RunGroup, SortKey, grouped, ordered, selected
from stoker.cli.main import main
from stoker.errors import ConfigError
from stoker.runs import Attempt, RunMetadata
from stoker.runs.status import RunStatus

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def a_run(
    run_id: str,
    *,
    at_s: int = 0,
    steps: int = 100,
    best: float | None = None,
    status: Any = "done",
    name: str = "pole",
    **config: Any,
) -> Listed:
    at = BEGAN + timedelta(seconds=at_s)
    metadata = RunMetadata(
        name=name,
        version="v1",
        run_id=run_id,
        total_steps=steps,
        started_at=at,
        last_updated=at - 2 * timedelta(seconds=at_s),
        best_value=best,
        attempts=(Attempt(number=1, started_at=at),),
    )
    return Listed(Path("runs") / name / "v1" / run_id, metadata, RunStatus(status, ""), config)


BROKEN = Listed(Path("runs/pole/v1/x"), None, RunStatus("broken", "why"))
RUNS = (
    a_run("a", at_s=1, best=9.0, steps=50, agent="dqn", seed=0, agent_settings={"gamma": 0.9, "n_step": 1}),
    a_run("b", at_s=2, status="crashed", agent="dqn", seed=1, agent_settings={"gamma": 0.99, "tau": None}),
    a_run("c", at_s=3, best=10.0, status="live", agent="ppo", lockstep=True, track=["wandb", "mlflow"]),
    a_run("d", at_s=4, best=-1.0, name="ALE-Pong", agent="ppo", env="ALE/Pong-v5"),
    BROKEN,
)


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ("agent=dqn", "ab"),
        ("agent!=dqn", "cd"),
        ("agent=dqn seed=1", "b"),
        ("seed>=1", "b"),
        ("best>9", "c"),
        ("best<=9.0", "ad"),
        ("best=none", "b"),
        ("agent_settings.gamma<0.95", "a"),
        ("gamma=0.990", "b"),
        ("n-step=1", "a"),
        ("tau=none", "b"),
        ("lockstep=true", "c"),
        ("track=*mlflow*", "c"),
        ("env=ALE/*", "d"),
        ("name=pole status=broken", "x"),
        ("status=d*", "ad"),
        ("run=a", "a"),
        ("steps == 50", "a"),
        ("agent<3", ""),
    ],
)
def test_runs_are_selected_by_what_they_are(conditions: str, found: str) -> None:
    texts = conditions.split() if " == " not in conditions else [conditions]
    runs = selected(RUNS, [Condition.parse(text) for text in texts])
    assert "".join(run.place[2] for run in runs) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("agent", "--filter agent: write KEY=VALUE"),
        ("=3", "--filter =3: write KEY=VALUE"),
        ("best>=high", "'high' is no number"),
        ("best>nan", "'nan' is no number"),
        ("gama=1", "no run has 'gama'; did you mean agent_settings.gamma?"),
        ("qqq=1", "no run has 'qqq'; `stoker show RUN`"),
    ],
)
def test_a_condition_that_can_hold_for_no_run_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        selected(RUNS, [Condition.parse(text)])


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("started", "dcbax"),
        ("updated", "abcdx"),
        ("best", "cadxb"),
        ("steps", "dcbax"),
        ("name", "dabcx"),
        ("status", "cbdax"),
    ],
)
def test_runs_are_in_the_order_that_is_asked_for(key: SortKey, order: str) -> None:
    groups = ordered([RunGroup(*run.place[:2], (run,)) for run in RUNS], key)
    found = "".join(group.runs[0].place[2] for group in groups)
    assert found.replace("bx", "xb") == order.replace("bx", "xb")


def test_a_group_has_the_mean_of_those_that_have_a_value() -> None:
    group, other = grouped(RUNS)
    assert (group.name, group.version, len(group.runs), other.name) == ("pole", "v1", 4, "ALE-Pong")
    assert group.statuses == {"live": 1, "crashed": 1, "done": 1, "broken": 1}
    assert group.best == 9.5
    assert group.interval is not None
    assert group.interval.high - 9.5 == pytest.approx(12.7062 * 0.5, rel=1e-4)  # t of one degree of freedom
    assert other.interval is None


def test_ls_groups_sorts_and_filters(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    shutil.copytree(trained.root, root)
    first = root / "CartPole-v1/v1" / trained.run.name
    second = Path(shutil.copytree(first, root / "CartPole-v1/v1/20200101_000000"))
    for file, changes in (
        ("metadata.json", {"run_id": second.name, "best_value": 1000.0, "total_steps": 1300}),
        ("config.json", {"seed": 7}),
    ):
        values = json.loads((second / file).read_bytes())
        (second / file).write_text(json.dumps(values | changes))
    third = Path(shutil.copytree(first, root / "CartPole-v1/v2" / first.name)) / "metadata.json"
    third.write_text(third.read_text().replace('"version": "v1"', '"version": "v2"'))

    def ls(*words: str) -> list[str]:
        assert main(["ls", str(root), *words]) == 0
        return capsys.readouterr().out.splitlines()

    best = trained.line["best_eval_reward"]
    _, top, *_ = ls("--sort", "best")
    assert top.split()[2:6] == [second.name, "7", "1,300", "1,000.0"]
    assert [
        json.loads(line)["config"]["seed"]
        for line in ls("--json", "--filter", "seed>7", "--filter", "steps=1200")
    ] == [42, 42]
    (root / "CartPole-v1/v2/sweep.json").write_text('{"seeds": [42, 43, 44], "config": {}}')
    head, *rows = ls("--group", "--sort", "name")
    assert head.split() == ["name", "version", "runs", "steps", "best", "updated", "status"]
    half = 12.7062 * (1000.0 - best) / 2
    assert f"2  1,200 to 1,300  {(1000.0 + best) / 2:,.1f} ± {half:,.1f}" in rows[0]
    assert [row.rsplit("  ", 1)[1] for row in rows] == ["2 done", "1 done"]
    assert "  1 of 3  " in rows[1]
    facts = json.loads(ls("--group", "--json", "--filter", "version=v1")[0])
    assert (facts["seeds"], facts["statuses"], facts["n_best"]) == ([7, 42], {"done": 2}, 2)
    assert ls("--filter", "name=other") == [f"none of the 3 runs in {root} is selected by name=other"]
