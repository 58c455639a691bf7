"""What is shown of several policies that train: a table on a terminal, and lines elsewhere."""

from __future__ import annotations

import io

import anyio
import pytest
from group_parts import agents, hand_over, team_of
from rich.console import Console

from stoker.cli.group_views import GroupReading, GroupScreen, PolicyReading, drawn, line_of
from stoker.multi import MultiAgentSession

pytestmark = pytest.mark.anyio


async def shown_of(console: Console, *, progress: bool = True) -> GroupScreen:
    """Shows a group of 30 joint steps until they are done."""
    screen = GroupScreen(console, "red, blue · a game", 30, progress=progress)
    async with (
        MultiAgentSession(agents(), team_of, max_joint_steps=30) as group,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(screen.follow, group)
        await anyio.wait_all_tasks_blocked()
        for k in range(30):
            await hand_over(group, k)
        for session in group.sessions.values():
            await session.barrier()
        screen.say("finishing")
        tasks.cancel_scope.cancel()
    return screen


def terminal(file: io.StringIO, **settings: bool) -> Console:
    return Console(file=file, width=120, height=40, color_system=None, **settings)


async def test_a_terminal_has_a_table_with_a_line_for_each_policy() -> None:
    file = io.StringIO()
    await shown_of(terminal(file, force_terminal=True))
    last = file.getvalue().rpartition("red, blue · a game")[2]
    assert "30/30 joint steps" in last
    rows = {line.split()[0]: line.split()[1:] for line in last.splitlines() if line.strip()}
    assert rows["policy"] == ["steps", "episodes", "reward", "length", "eval", "best", "updates"]
    assert rows["red"][:4] == ["60", "8", "16.5", "7.0"]  # two agents, of which each had four episodes
    assert rows["blue"][:4] == ["30", "4", "16.5", "7.0"]
    assert int(rows["red"][-1]) > int(rows["blue"][-1]) > 0
    assert "finishing" in file.getvalue()


@pytest.mark.parametrize("progress", [True, False])
async def test_elsewhere_there_is_no_table(progress: bool) -> None:
    file = io.StringIO()
    await shown_of(terminal(file, force_terminal=not progress), progress=progress)
    assert file.getvalue() == "finishing\n"  # the first line is due after 5 s


def test_a_narrow_terminal_shows_whole_values_of_fewer_kinds() -> None:
    policy = PolicyReading(
        name="red", steps=123_456, episodes=1000, reward=-1234.5, length=3.0, evaluation=-1200.0,
        best=-1100.5, updates=99_999,
    )  # fmt: skip
    reading = GroupReading(joint_steps=1000, limit=2000, steps_per_s=500.0, elapsed_s=2.0, policies=(policy,))
    console = Console(width=40, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(drawn(reading, "red", console.width))
    _, *said, head, row = capture.get().splitlines()
    assert " ".join(" ".join(said).split()) == "1,000/2,000 joint steps 500/s ETA 0:02 elapsed 0:02"
    assert head.split() == ["policy", "steps", "reward", "best"]
    assert row.split() == ["red", "123,456", "-1,234.5", "-1,100.5"]


def test_a_line_has_each_policy() -> None:
    policies = tuple(
        PolicyReading(
            name=name, steps=9, episodes=3, reward=reward, length=3.0, evaluation=None, best=None, updates=0
        )
        for name, reward in (("red", 1.5), ("blue", None))
    )
    reading = GroupReading(joint_steps=1000, limit=2000, steps_per_s=500.0, elapsed_s=2.0, policies=policies)
    assert line_of(reading) == (
        "  1,000/2,000 joint steps  500/s   red: reward 1.5, 3 episodes   blue: reward -, 3 episodes"
    )
    assert reading.eta_s == 2.0
