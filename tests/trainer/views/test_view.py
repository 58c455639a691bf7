"""The live view: what it draws and how it fits; a screen follows a training to its last state."""

from __future__ import annotations

import io
import math
import re
import threading
from typing import Any

import anyio
import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from stoker.testing import ChainEnv, FakeAgent
from stoker.trainer import Progress, Trainer, TrainerConfig
from stoker.trainer.views.panel import draw
from stoker.trainer.views.readings import Reading
from stoker.trainer.views.view import LiveView, PlainView, Screen, View, progress_line, view_for

FULL: dict[str, Any] = {
    "total_steps": 12_000,
    "limit": 60_000,
    "total_episodes": 412,
    "steps_per_s": 1950.4,
    "elapsed_s": 6.2,
    "eta_s": 24.6,
    "mean_reward": 187.31,
    "mean_length": 188.0,
    "curve": tuple(float(i) for i in range(300)),
    "exploration": 0.25,
    "metrics": {"loss": 0.0123, "q_mean": 31.2},
    "opt_steps": 11_000,
    "queue": 0.4,
    "shares": {"env": 0.12, "act": 0.22, "learn": 0.55, "write": 0.013},
    "last_eval": (412.0, 10_000),
    "best": (475.2, 5_000),
    "restarts": 0,
}
NOTHING_YET: dict[str, Any] = {
    **FULL,
    "total_steps": 0,
    "total_episodes": 0,
    "steps_per_s": 0.0,
    "eta_s": None,
    "mean_reward": math.nan,
    "mean_length": math.nan,
    "curve": (),
    "exploration": None,
    "metrics": {},
    "opt_steps": 0,
    "last_eval": None,
    "best": None,
}


def drawn(values: dict[str, Any], width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as text:
        console.print(draw(Reading(**values), "dqn", console))
    return text.get().splitlines()


@pytest.mark.parametrize("width", [40, 60, 64, 80, 120, 200])
@pytest.mark.parametrize("values", [FULL, NOTHING_YET], ids=["full", "nothing yet"])
def test_it_fits_and_shows_every_number(values: dict[str, Any], width: int) -> None:
    lines = drawn(values, width, 24)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= 24
    text = "\n".join(lines)
    for label in ("ep_rew_mean", "ep_len_mean", "total_timesteps", "fps", "n_updates", "queue", "best"):
        assert label in text
    if values is FULL:
        for shown in (
            "187.3",
            "188.0",
            "412",
            "0.250",
            "12,000",
            "1,950",
            "0:25",
            "0.0123",
            "412.0",
            "475.2",
            "60,000",
            "20%",
        ):
            assert shown in text
        assert "55%" in text  # learning's share


@pytest.mark.parametrize(("width", "n_asides"), [(40, 0), (58, 2), (77, 2), (80, 2)])
def test_a_narrow_terminal_shows_restarts_and_as_much_beside_the_values_as_fits(
    width: int, n_asides: int
) -> None:
    text = "\n".join(drawn({**FULL, "restarts": 3}, width, 24))
    assert re.search(r"env restarts +3 ", text)
    assert len(re.findall(r"@ \d+,000 steps", text)) == n_asides


def test_a_tall_terminal_also_gets_a_chart() -> None:
    assert not any("reward so far" in line for line in drawn(FULL, 80, 24))
    assert any("reward so far" in line for line in drawn(FULL, 80, 45))


def test_a_plain_line_has_what_is_known() -> None:
    assert progress_line(Reading(**FULL)) == (
        "  12,000/60,000 steps  1,950/s  ETA 0:25  reward 187.3  length 188.0  "
        "eval 412.0 (best 475.2)  exploration 0.250  loss 0.0123"
    )
    assert progress_line(Reading(**NOTHING_YET)) == "  0/60,000 steps  0/s"


def test_plain_lines_come_at_evaluations_and_at_the_end() -> None:
    out = io.StringIO()
    view = PlainView(Console(file=out))
    before = {**FULL, "last_eval": None}
    view.show(Reading(**before))
    view.show(Reading(**before))
    assert out.getvalue() == ""
    view.show(Reading(**FULL))
    view.show(Reading(**FULL))
    assert out.getvalue().count("\n") == 1
    view.show(Reading(**{**FULL, "total_steps": 13_000}), last=True)
    assert out.getvalue().splitlines()[1].startswith("  13,000/60,000 steps")


def test_the_view_fits_where_it_goes() -> None:
    for terminal, progress, kind in [
        (True, True, LiveView),
        (False, True, PlainView),
        (True, False, View),
        (False, False, View),
    ]:
        console = Console(file=io.StringIO(), force_terminal=terminal, _environ={"TERM": "xterm"})
        assert type(view_for(console, "dqn", progress=progress)) is kind


class Config(TrainerConfig, frozen=True, kw_only=True):
    """What readings need of a config."""

    total_timesteps: int = 50


class Kept(View):
    """A view that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, bool]] = []
        self.n_closed = 0

    def show(self, reading: Reading, *, last: bool = False) -> None:
        self.shown.append((reading.total_steps, last))

    def close(self) -> None:
        self.n_closed += 1


class Gone(Kept):
    """A terminal that hung up."""

    def show(self, reading: Reading, *, last: bool = False) -> None:
        super().show(reading, last=last)
        raise BrokenPipeError


class Stuck(Kept):
    """A terminal that accepts nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def show(self, reading: Reading, *, last: bool = False) -> None:
        self.go.wait(60)
        super().show(reading, last=last)


async def trained_on(view: Kept, **settings: Any) -> Screen:
    screen = Screen(view, **settings)
    trainer = Trainer(FakeAgent(action=1), ChainEnv, TrainerConfig(max_steps=50, num_envs=2))

    async def watch(progress: Progress) -> None:
        await screen.follow(msgspec.structs.replace(progress, config=Config()))

    with anyio.fail_after(60):
        result = await trainer.train(watch=watch)
        await screen.close()
    assert result.total_steps == 50
    return screen


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Kept, Gone])
async def test_the_last_state_is_shown_and_the_view_closed(kind: type[Kept]) -> None:
    view = kind()
    screen = await trained_on(view)
    assert view.shown[-1] == (50, True)
    assert [last for _, last in view.shown[:-1]] == [False] * (len(view.shown) - 1)
    assert view.n_closed == 1
    assert screen.reading is not None
    assert screen.reading.total_steps == 50


@pytest.mark.anyio
async def test_a_terminal_that_accepts_nothing_does_not_keep_a_training_from_ending() -> None:
    view = Stuck()
    screen = await trained_on(view, closing_s=0.05)
    assert view.shown == []
    assert screen.reading is not None
    assert screen.reading.total_steps == 50
    view.go.set()
