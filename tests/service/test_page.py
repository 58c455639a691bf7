"""The conversation of docs/protocol.md, with a real service: what the page says is answered so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from servers import Service, open_stream, served

from stoker import DQN

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
CARTPOLE = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32), gymnasium.spaces.Discrete(2)


@pytest.fixture
def service(tmp_path: Path) -> Any:
    with served(lambda: DQN(*CARTPOLE, seed=0), tmp_path / "page" / "served", spaces=CARTPOLE) as service:
        yield service


def played(service: Service, message: Any, known: Any) -> Any:
    """The answer to a message of the page, if it reports the action and the memo that are known."""
    (record,) = message["steps"]
    steps = [record | {key: known[key] for key in ("action", "memo") if key in record}]
    answer = service.post(message | {"steps": steps})
    assert answer.status_code == 200, answer.text
    return answer.json()["actors"]["npc-7"]


def test_the_episode_of_the_page(service: Service) -> None:
    sent, answered = EXAMPLES[0:6:2], EXAMPLES[1:6:2]
    known: Any = {}
    for message, expected in zip(sent, answered, strict=True):
        known = played(service, message, known)
        wanted = expected["actors"]["npc-7"]
        assert known.keys() == wanted.keys()
        assert known["next"] == wanted["next"]
        assert (known["action"] is None) == (wanted["action"] is None)
    last = service.get("/v1/actors/npc-7").json()
    assert last["answer"]["next"] == 4
    assert "episode" in last or last["answer"]["action"] is None


def test_the_rules_of_the_page(service: Service) -> None:
    first, second = EXAMPLES[0], EXAMPLES[2]
    begun = played(service, first, {})
    assert played(service, first, {}) == begun, "the last record is answered as before"
    ahead = {"steps": [first["steps"][0] | {"seq": 9}]}
    gap = service.post(ahead)
    assert (gap.status_code, gap.json()["type"]) == (409, "urn:stoker:problem:gap")
    assert gap.json()["actors"]["npc-7"]["next"] == 2
    moved = played(service, second, begun)
    assert played(service, first, {})["action"] is None, "older records are not answered with an action"
    other = {"actor": "a", "seq": 7, "start": True, "observation": [0, 0, 0, 0]}
    third = second["steps"][0] | {"seq": 3, "memo": None}
    refused = service.post({"steps": [third, other]}).json()
    assert refused["path"] == "steps[1].seq"
    assert refused["actors"]["npc-7"]["next"] == moved["next"] == 3, "nothing of a refused message is taken"
    known = {"action": begun["action"], "memo": begun["memo"]}
    again = {"steps": [second["steps"][0] | known], "ack": "durable"}
    assert service.post(again).json()["actors"]["npc-7"] == moved | {"durable": 2}
    service.post({"steps": [first["steps"][0] | {"seq": 3}]})
    assert service.get("/v1/actors/npc-7").json()["episode"]["length"] == 0, "start abandons the episode"


def test_the_whole_episode_of_the_page(service: Service) -> None:
    message, expected = (each for each in EXAMPLES if "episode_id" in each)
    answers = [service.post(message, "/v1/episodes").json() for _ in range(2)]
    assert answers[0] == expected
    assert answers[1] | {"durable": False} == expected | {"repeated": True}


def test_the_stream_of_the_page(service: Service) -> None:
    hello, welcome = (each for each in EXAMPLES if {*each} & {"hello", "welcome"})
    played(service, EXAMPLES[0], {})
    with open_stream(service, hello["hello"]) as stream:
        answered = stream.welcome["welcome"]
        assert answered.keys() == welcome["welcome"].keys()
        assert answered["spec"].keys() >= welcome["welcome"]["spec"].keys()
        assert answered["spec"]["limits"] == welcome["welcome"]["spec"]["limits"]
        assert answered["actors"]["npc-7"]["next"] == 2
        assert stream.ask({"ping": 3}) == {"pong": 3}


class PageActor:
    """The loop of the page, line by line; what it may wait for does not happen here."""

    def __init__(self, service: Service, actor: str) -> None:
        self.service, self.actor, self.kept, self.known = service, actor, [], {}
        self.seq = 0

    def step(self, **fields: Any) -> Any:
        self.seq += 1
        record = {"actor": self.actor, "seq": self.seq, **fields}
        self.kept.append(record)
        answer, is_gap = self.post([record])
        while is_gap:
            first = min(answer["next"], self.seq)
            answer, is_gap = self.post([each for each in self.kept if each["seq"] >= first])
        assert answer["next"] == self.seq + 1, "another client plays under this name"
        self.known = {"action": answer["action"], "memo": answer["memo"]}

    def post(self, records: list[Any], ack: str = "accepted") -> tuple[Any, bool]:
        response = self.service.post({"steps": records, "ack": ack})
        is_gap = response.status_code == 409 and response.json()["type"].endswith(":gap")
        assert response.status_code == 200 or is_gap, response.text
        answer = response.json()["actors"][self.actor]
        self.kept = [each for each in self.kept if each["seq"] > answer["durable"] or each["seq"] == self.seq]
        return answer, is_gap

    def play(self, n: int) -> None:
        """So many records, in episodes of ten."""
        for _ in range(n):
            if self.seq % 10 == 0:
                self.step(start=True, observation=[0, 0, 0, 0])
            else:
                self.step(
                    **self.known, reward=1, observation=[0, 1, 0, self.seq], truncated=self.seq % 10 == 9
                )


def test_the_loop_of_the_page_brings_a_service_that_lost_everything_up_to_date() -> None:
    """Without a run nothing is durable, so that a restarted service knows nothing."""
    actor: Any = None
    for n_records in (25, 50):
        with served(lambda: DQN(*CARTPOLE, seed=0), spaces=CARTPOLE) as service:
            actor = actor or PageActor(service, "npc-7")
            actor.service = service
            actor.play(25)
            state = service.get("/v1/actors/npc-7").json()
            assert state["answer"]["next"] == n_records + 1
            assert service.hosted.session.accepted_steps == n_records - len(range(0, n_records, 10))
            assert len(actor.kept) == n_records
