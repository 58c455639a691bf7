"""``stoker record``: films that play, of the episodes that ``stoker eval`` plays, and errors that say why."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from PIL import Image

import launching
from films import frames_of
from stoker.cli.video import Film
from stoker.errors import ConfigError, StokerError


def test_a_film_holds_each_step_of_the_episodes_that_eval_plays_and_replaces_no_file(
    trained: Any, stoker: Any, tmp_path: Path
) -> None:
    done = stoker("record", str(trained.run), "-o", "film.mp4", "--episodes", "2", "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr
    recorded = json.loads(done.stdout)
    assert (recorded["video"], recorded["checkpoint"]) == ("film.mp4", "best.pt")
    evaluated = json.loads(
        stoker("eval", str(trained.run), "--episodes", "2", "--seed", "7", "--json").stdout
    )
    assert recorded["episodes"] == evaluated["episodes"]
    frames = frames_of(tmp_path / "film.mp4", 400, 600)
    n_frames = sum(1 + episode["length"] for episode in recorded["episodes"])
    assert len(frames) == n_frames
    changes = [np.abs(one.astype(int) - two).max() for one, two in itertools.pairwise(frames)]
    assert np.median(changes) > 50, "the cart moves"

    done = stoker("record", str(trained.run), "-o", "film.mp4")
    assert done.returncode == 2
    assert done.stderr == ("stoker: error: film.mp4 exists: give another name, or --force to replace it\n")
    assert len(frames_of(tmp_path / "film.mp4", 400, 600)) == len(frames)
    (tmp_path / "film.gif").write_bytes(b"old")
    done = stoker("record", str(trained.run), "-o", "film.gif", "--checkpoint", "latest", "--force")
    assert done.stdout.startswith("film.gif: step_1200.pt of step 1,200, reward "), done.stderr
    reward = int(float(done.stdout.split()[-1]))
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.format, film.size) == ("GIF", (600, 400))
        assert film.n_frames == reward + 1
    assert {path.name for path in tmp_path.iterdir()} == {"film.mp4", "film.gif"}


class Counting(gymnasium.Env[np.ndarray, int]):
    """Renders the number of the step as gray, in pictures that no codec likes."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space, action_space = Box(0, 1, (1,), np.float32), Discrete(2)
    render_mode = "rgb_array"

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.n = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        self.n += 1
        return np.zeros(1, np.float32), 0.0, self.n == self.length, False, {}

    def render(self) -> np.ndarray:
        return np.full((9, 7, 3), self.n / 20)


@pytest.mark.anyio
async def test_episodes_are_joined_without_those_that_did_not_end(tmp_path: Path) -> None:
    with Film() as film:
        env = film.around(Counting(12), "Counting")
        env.reset()
        for _ in range(7):
            env.step(0)
        for _ in range(2):
            env.reset()
            for _ in range(12):
                env.step(0)
        env.close()
        unfinished = film.around(Counting(3), "Counting")
        unfinished.reset()
        unfinished.step(0)
        unfinished.close()
        await film.publish(tmp_path / "film.mp4")
    frames = frames_of(tmp_path / "film.mp4", 208, 162)  # enlarged 23 times, and even
    assert [round(frame.mean() / 255 * 20) for frame in frames] == [*range(13), *range(13)]


class Growing(Counting):
    """Its pictures change size."""

    def render(self) -> np.ndarray:
        return np.zeros((200 + 2 * self.n, 200, 3), np.uint8)


class Drawing(Counting):
    def render(self) -> Any:
        return "a drawing"


@pytest.mark.anyio
async def test_what_cannot_be_filmed(tmp_path: Path) -> None:
    with Film() as film:
        with pytest.raises(ConfigError, match="its render_mode is None"):
            film.around(gymnasium.make("CartPole-v1"), "CartPole-v1")
        with pytest.raises(ConfigError, match="only a gymnasium.Env can be recorded"):
            film.around(object(), "object")
        with pytest.raises(StokerError, match="no episode has ended"):
            await film.publish(tmp_path / "film.mp4")
        with pytest.raises(ConfigError, match="env='Drawing' cannot be recorded: it rendered a str"):
            film.around(Drawing(1), "Drawing").reset()
        growing = film.around(Growing(2), "Growing")
        growing.reset()
        with pytest.raises(StokerError, match="200 x 200 and then 200 x 202 pixels"):
            growing.step(0)
        growing.close()


@pytest.mark.anyio
async def test_an_error_of_ffmpeg_is_raised_with_its_words(tmp_path: Path) -> None:
    with Film() as film:
        env = film.around(Counting(1000), "Counting")
        shutil.rmtree(film._path)
        with pytest.raises(StokerError, match="ffmpeg failed: .*No such file or directory"):
            env.reset()
            for _ in range(1000):
                env.step(0)
        env.close()


REFUSED = [
    (("-o", "film.avi"), "film.avi: the name of a film must end with .mp4 or .gif"),
    (("-o", "nowhere/film.mp4"), "nowhere/film.mp4: there is no directory nowhere"),
    ((), "--output: name the film, such as `stoker record RUN -o film.mp4`"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_a_wrong_name_is_one_line(trained: Any, command: Any, words: tuple[str, ...], said: str) -> None:
    done = command("record", str(trained.run), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"stoker: error: {said}")


def test_an_environment_that_has_no_pictures_is_one_line(stoker: Any, tmp_path: Path) -> None:
    (tmp_path / "dark.py").write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Dark(CartPoleEnv):\n    def __init__(self):\n        super().__init__()\n"
    )
    assert stoker("train", "dark:Dark", "-n", "50", "--eval-freq", "0", "--no-progress").returncode == 0
    done = stoker("record", "runs", "-o", "film.mp4")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()[-1:]
    assert "a film needs render_mode='rgb_array': env='dark:Dark' cannot be called with render_mode" in line
    assert not (tmp_path / "film.mp4").exists()


def test_without_the_extra_it_says_what_to_install(trained: Any, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['imageio_ffmpeg'] = None\n"
        "from stoker.cli.main import main\n"
        f"sys.exit(main(['record', {str(trained.run)!r}, '-o', 'film.mp4']))"
    )
    done = launching.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert (
        done.stderr == "stoker: error: imageio_ffmpeg is not installed: run `pip install 'stoker[video]'`\n"
    )


def test_eval_lists_its_episodes(trained: Any, command: Any) -> None:
    done = command("eval", str(trained.run), "--episodes", "3", "--list")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["episode", "reward", "length", "ended"]
    rewards = [float(line.split()[1]) for line in lines[1:4]]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert f"mean_reward: {np.mean(rewards):.3f}" in done.stdout


def test_eval_shows_its_episodes_in_a_window(trained: Any, stoker: Any) -> None:
    shown = stoker(
        "eval", str(trained.run), "--episodes", "1", "--render", "--json", env={"SDL_VIDEODRIVER": "dummy"}
    )
    assert shown.returncode == 0, shown.stderr
    unseen = stoker("eval", str(trained.run), "--episodes", "1", "--json")
    assert json.loads(shown.stdout)["episodes"] == json.loads(unseen.stdout)["episodes"]
