"""Spaces of every kind through a real service: masks, nested observations, arrays in both formats."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from gymnasium import spaces
from servers import Service, served

from stoker import DQN, PPO, PPOConfig
from stoker.protocol import encode_msgpack

SEEN = spaces.Box(-1, 1, (3,), np.float32)
MASKED = spaces.Dict({"observation": SEEN, "action_mask": spaces.MultiBinary(4)}), spaces.Discrete(4)
NESTED = (
    spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (12, 12, 1), np.uint8),
            "arm": spaces.Tuple([SEEN, spaces.MultiDiscrete([3, 2])]),
            "room": spaces.Discrete(3, start=1),
            "doors": spaces.MultiBinary(2),
        }
    ),
    spaces.Box(-2, 2, (2,), np.float32),
)


@pytest.fixture(scope="module")
def masked() -> Iterator[Service]:
    with served(lambda: DQN(*MASKED, seed=0), spaces=MASKED) as service:
        yield service


def begin(service: Service, actor: str, observation: Any, **fields: Any) -> Any:
    record = {"actor": actor, "seq": 1, "start": True, "observation": observation, **fields}
    return service.post({"steps": [record]})


def test_only_actions_that_the_mask_allows_are_answered(masked: Service) -> None:
    assert masked.get("/v1/spec").json()["action_mask"] == 4
    for allowed in range(4):
        mask = [int(choice == allowed) for choice in range(4)]
        answer = begin(masked, f"one-{allowed}", [0.1, 0.2, 0.3], action_mask=mask).json()
        assert answer["actors"][f"one-{allowed}"]["action"] == allowed
    whole = begin(masked, "whole", {"observation": [0, 0, 0], "action_mask": [False, False, True, False]})
    assert whole.json()["actors"]["whole"]["action"] == 2


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "steps[0].action_mask"),
        ({"action_mask": [1, 1, 1]}, "steps[0].action_mask"),
        ({"action_mask": [1, 1, 1, 2]}, "steps[0].action_mask[3]"),
        ({"action_mask": [0, 0, 0, 0]}, "steps[0].observation"),
    ],
)
def test_a_mask_that_allows_nothing_or_does_not_fit_is_refused(
    masked: Service, fields: Any, path: str
) -> None:
    refused = begin(masked, "refused", [0, 0, 0], **fields)
    assert (refused.status_code, refused.json()["path"]) == (422, path)


def test_a_forbidden_action_is_refused_and_a_last_observation_needs_no_mask(masked: Service) -> None:
    begin(masked, "goes", [0, 0, 0], action_mask=[0, 1, 0, 0])
    last = {"actor": "goes", "seq": 2, "reward": 1, "observation": [1, 1, 1], "truncated": True}
    forbidden = masked.post({"steps": [last | {"action": 0}]})
    assert (forbidden.status_code, forbidden.json()["path"]) == (422, "steps[0].action")
    assert masked.post({"steps": [last]}).json()["actors"]["goes"]["next"] == 3


def test_nested_observations_and_arrays_of_actions_travel_in_both_formats() -> None:
    """PPO learns only from its own actions, so that each one must come back to the bit."""
    config = PPOConfig(rollout_steps=64)
    with served(lambda: PPO(*NESTED, config, seed=0), spaces=NESTED) as service:
        NESTED[0].seed(0)
        for form in ("json", "msgpack"):
            known: Any = None
            for seq in range(1, 11):
                sample: Any = NESTED[0].sample()
                record = {"actor": form, "seq": seq, "observation": sent(sample, form)}
                record |= {"start": True} if known is None else {"reward": 1.0, **known}
                answer = asked(service, {"steps": [record]}, form)["actors"][form]
                assert answer["next"] == seq + 1
                assert len(answer["action"]) == 2
                known = {"action": answer["action"], "memo": answer["memo"]}
            other = {
                "actor": form,
                "seq": 11,
                "observation": sent(sample, form),
                "reward": 1.0,
                "action": [0.5, 0.5],
            }
            assert asked(service, {"steps": [other]}, form)["type"] == "urn:stoker:problem:off-policy"
        assert service.hosted.session.accepted_steps == 18


def sent(sample: Any, form: str) -> Any:
    """A sample as clients send it; MessagePack holds arrays as they are."""
    if form == "msgpack":
        return sample
    camera = {
        "b64": base64.b64encode(sample["camera"].tobytes()).decode(),
        "dtype": "uint8",
        "shape": [12, 12, 1],
    }
    arm = [part.tolist() for part in sample["arm"]]
    return {"camera": camera, "arm": arm, "room": int(sample["room"]), "doors": sample["doors"].tolist()}


def asked(service: Service, message: Any, form: str) -> Any:
    if form == "json":
        return service.post(message).json()
    options = {"headers": {"content-type": "application/msgpack"}}
    response = service.post(encode_msgpack(message), **options)
    decoder = msgspec.json if response.status_code != 200 else msgspec.msgpack
    return decoder.decode(response.content)
