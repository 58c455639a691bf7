"""What clients are told of their streams, and of messages that a training does not take."""

from __future__ import annotations

from stoker.errors import InvalidExperience, SessionClosed, SessionError
from stoker.protocol import ActorAnswer, ActorState, OpenEpisode, ProtocolError
from stoker.service.planning import Draft, Plan
from stoker.service.table import Stream


def answer_to(draft: Draft) -> ActorAnswer:
    """The answer to the last record of an actor in a message that was taken."""
    stream, record = draft.stream, draft.record
    state, answered = stream.state, stream.answered
    if answered is None or not record.act or record.seq != state.next - 1:
        return ActorAnswer(state.next, stream.durable)
    return ActorAnswer(state.next, stream.durable, answered.action, answered.memo, answered.policy_version)


def standing_of(stream: Stream) -> ActorAnswer:
    """Where a stream stands, without an action."""
    return ActorAnswer(stream.state.next, stream.durable)


def state_of(stream: Stream) -> ActorState:
    """Where a stream stands, with what was answered last."""
    state, answered, answer = stream.state, stream.answered, standing_of(stream)
    if answered is not None:
        sent = answered.action, answered.memo, answered.policy_version
        answer = ActorAnswer(state.next, stream.durable, *sent)
    episode = OpenEpisode(state.length, state.total_reward, state.learns) if state.is_open else None
    return ActorState(stream.name, answer, episode, stream.epoch)


def ended(error: SessionError) -> ProtocolError:
    """The problem of a training that has failed, or is being closed."""
    if isinstance(error, SessionClosed):
        return ProtocolError("going-down", "the training is being closed: send it again", retry_after=1.0)
    return ProtocolError("training-failed", str(error))


def training_done() -> ProtocolError:
    """The problem of records beyond the last step of a training."""
    return ProtocolError("training-done", "the training has all its steps: no more records are taken")


def no_disk() -> ProtocolError:
    """The problem of waiting for a disk that there is not."""
    detail = 'this service has no run on disk, so nothing becomes durable: use "accepted"'
    return ProtocolError("invalid", detail, path="ack")


_FIELDS = {"next_observation": "observation", "status": "terminated"}
"""Fields of a record, by those of the session's events that they become."""


def invalid(refusal: InvalidExperience, planned: Plan) -> ProtocolError:
    """The problem of a record whose event the session refuses."""
    at = planned.place_of(refusal.index or 0)
    if refusal.field == "policy_extras":
        detail = (
            "the agent learns only from actions that its policy chose: send the action and the memo of the "
            "last answer as they came, or leave both out"
        )
        return ProtocolError("off-policy", detail, path=f"steps[{at}].memo")
    return ProtocolError(
        "invalid", str(refusal), path=f"steps[{at}].{_FIELDS.get(refusal.field, refusal.field)}"
    )
