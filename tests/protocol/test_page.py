"""What docs/protocol.md says is so: its examples are messages, and its tables are complete."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.protocol import (
    ActorAnswer,
    CloseCode,
    EpisodeAnswer,
    EpisodeMessage,
    ErrorFrame,
    Hello,
    HelloFrame,
    PongFrame,
    Problem,
    Record,
    StepAnswer,
    StreamMessage,
    WelcomeFrame,
    decode,
    decode_memo,
    decode_step,
    decode_stream,
    encode_json,
)
from stoker.protocol.documents import document
from stoker.protocol.problems import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
INLINE = [text for text in re.findall(r"`(\{.*?\})`", PAGE) if text.startswith('{"')]
KINDS_OF_MESSAGE: dict[str, Any] = {
    "hello": HelloFrame,
    "welcome": WelcomeFrame,
    "pong": PongFrame,
    "error": ErrorFrame,
    "type": Problem,
    "training": StepAnswer,
}


def rows(heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    table = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\) \| ", row.strip("| "))] for row in table.splitlines()[2:]
    ]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def message_of(text: str) -> Any:
    """The message that an example is, with no field that its struct does not know."""
    keys = json.loads(text)
    if "episode_id" in keys:
        return decode(text, "json", EpisodeMessage if "actions" in keys else EpisodeAnswer)
    if "steps" in keys:
        return decode_step(text.encode(), "json")
    if "ping" in keys:
        return decode_stream(text, "json")
    return decode(text, "json", next(each for key, each in KINDS_OF_MESSAGE.items() if key in keys))


def known_fields(sent: Any, taken: Any) -> None:
    """Fail if the example has a field that the message did not take."""
    if isinstance(sent, dict):
        assert isinstance(taken, dict)
        assert sent.keys() <= taken.keys()
        for key, each in sent.items():
            known_fields(each, taken[key])
    elif isinstance(sent, list):
        for each, other in zip(sent, taken, strict=True):
            known_fields(each, other)


def whole(message: Any) -> Any:
    """A message in builtins with all of its fields, those of default values, too."""
    if isinstance(message, msgspec.Struct):
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        return {name: whole(value) for name, value in fields.items() if value is not msgspec.UNSET}
    if isinstance(message, dict):
        return {key: whole(value) for key, value in message.items()}
    return [whole(value) for value in message] if isinstance(message, list) else message


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_message(text: str) -> None:
    message = message_of(text)
    known_fields(json.loads(text), whole(message))
    assert decode(encode_json(message), "json", type(message)) == message
    if isinstance(message, Problem):
        kind = KINDS[message.kind]
        assert (message.title, message.status) == (kind.title, kind.status)


def test_the_episode_is_one_conversation() -> None:
    """The record behind each answer has its ``next``, action and memo; the memos are real ones."""
    messages = [message_of(text) for text in EXAMPLES[:6]]
    for sent, answered, following in zip(messages[::2], messages[1::2], [*messages[2::2], None], strict=True):
        (record,) = sent.steps
        answer = answered.actors[record.actor]
        assert answer.next == record.seq + 1
        if following is None:
            assert record.is_last
            assert (answer.action, answer.memo) == (None, None)
        else:
            then = following.steps[0]
            assert (then.seq, then.action, then.memo) == (answer.next, answer.action, answer.memo)
            memo = decode_memo(answer.memo, "memo")
            assert (memo.version, memo.action) == (answer.policy_version, answer.action)


def test_every_field_is_in_its_table() -> None:
    for heading, kind in (("Field", Record), ("Answer", ActorAnswer), ("Hello", Hello)):
        listed = [name for row in rows(heading) for name in names(row[0])]
        assert sorted(listed) == sorted(kind.__struct_fields__)


def test_every_kind_of_problem_is_in_the_table_with_its_status() -> None:
    listed = {kind: int(row[1]) for row in rows("Kind") for kind in names(row[0])}
    assert listed == {kind: each.status for kind, each in KINDS.items()}


def test_every_close_code_is_in_the_table_with_its_kinds() -> None:
    listed = {int(row[0]): {*names(row[1])} & {*KINDS} for row in rows("Closed with")}
    by_code = {code: {kind for kind, each in KINDS.items() if each.close == code} for code in CloseCode}
    assert listed == {int(code): kinds for code, kinds in by_code.items() if kinds}


def test_every_address_is_in_the_table_with_its_auth() -> None:
    paths = json.loads(document("openapi"))["paths"]
    described = {
        f"{method.upper()} {path}": operation.get("security") != [{}]
        for path, each in paths.items()
        for method, operation in each.items()
        if method != "parameters"
    }
    listed = {names(row[0])[0]: row[2] != "none" for row in rows("Address")}
    assert listed.pop("GET /v1/stream")
    assert listed == described


def test_what_is_shown_in_a_line_is_a_message_as_well() -> None:
    shown = {text for text in INLINE if "ping" in text or "pong" in text}
    assert {type(message_of(text)) for text in shown} == {StreamMessage, PongFrame}
