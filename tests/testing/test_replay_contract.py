"""The suite for replays lets stoker's pass, and names the promise that a broken one breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from stoker import ConfigError
from stoker.replay import UniformReplay
from stoker.replay.prioritized import PrioritizedReplay
from stoker.testing import ContractViolation, check_replay


def uniform(capacity: int, seed: int) -> UniformReplay:
    return UniformReplay(capacity, (2,), seed=seed)


def prioritized(capacity: int, seed: int) -> PrioritizedReplay:
    return PrioritizedReplay(capacity, (2,), seed=seed)


@pytest.mark.parametrize("make", [uniform, prioritized])
def test_stokers_own_replays_keep_every_promise(make: Any) -> None:
    check_replay(make)


def test_observations_may_be_of_any_shape() -> None:
    check_replay(lambda n, seed: UniformReplay(n, (3, 4, 2), seed=seed), observation_shape=(3, 4, 2))
    with pytest.raises(ContractViolation):
        check_replay(uniform, observation_shape=(3,))


class Odd(UniformReplay):
    """A replay that a subclass spoils."""

    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(capacity, (2,), seed=seed)


class Boastful(Odd):
    def __len__(self) -> int:
        return self.n_added


class KeepsTheFirst(Odd):
    def add(self, experience: Any, bootstrap_mask: Any = None) -> None:
        if len(self) < self.capacity:
            super().add(experience, bootstrap_mask)

    def extend(self, experiences: Sequence[Any]) -> None:
        for experience in experiences:
            self.add(experience)


class DrawsTheEmpty(Odd):
    def sample(self, batch_size: int) -> Any:
        batch = super().sample(batch_size)
        return batch._replace(rewards=batch.rewards * (batch.rewards > 3))


class MixesRows(Odd):
    def sample(self, batch_size: int) -> Any:
        batch = super().sample(batch_size)
        return batch._replace(next_observations=batch.next_observations.flip(0))


class FlatBatches(Odd):
    def sample(self, batch_size: int) -> Any:
        batch = super().sample(batch_size)
        return batch._replace(observations=batch.observations.flatten())


class MergesTheEnds(Odd):
    def sample(self, batch_size: int) -> Any:
        batch = super().sample(batch_size)
        return batch._replace(bootstrap_masks=(batch.rewards % 3 == 0).float())


class ExtendsBackwards(Odd):
    def extend(self, experiences: Sequence[Any]) -> None:
        super().extend(experiences[::-1])


class ByReference(Odd):
    """Copies when it is asked for the first time."""

    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(capacity, seed)
        self.pending: list[Any] = []

    def add(self, experience: Any, bootstrap_mask: Any = None) -> None:
        self.pending.append(experience)

    def settle(self) -> None:
        pending, self.pending = self.pending, []
        for experience in pending:
            super().add(experience)

    def sample(self, batch_size: int) -> Any:
        self.settle()
        return super().sample(batch_size)

    def __len__(self) -> int:
        return min(self.capacity, super().__len__() + len(self.pending))

    def state_dict(self) -> Any:
        return {**super().state_dict(), "pending": [torch.from_numpy(e.observation) for e in self.pending]}


class Views(Odd):
    def sample(self, batch_size: int) -> Any:
        batch, held = super().sample(batch_size), self.state_dict()
        return batch._replace(rewards=held["rewards"])


class Unseeded(Odd):
    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(capacity, torch.seed() % 1000)


class OneSeed(Odd):
    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(capacity, 0)


class DrawsAnything(Odd):
    def sample(self, batch_size: int) -> Any:
        return super().sample(max(1, batch_size))


class RaisesIndexErrors(Odd):
    def sample(self, batch_size: int) -> Any:
        if not len(self):
            raise IndexError("nothing there")
        return super().sample(batch_size)


class DrawsBeforeItRefuses(Odd):
    def sample(self, batch_size: int) -> Any:
        torch.rand((), generator=self._generator)
        return super().sample(batch_size)


class ForgetsItsGenerator(Odd):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "generator": torch.Generator().get_state()})


class ForgetsItsCount(Odd):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "n_added": 0})


class CopiesShareRows(Odd):
    def __deepcopy__(self, memo: Any) -> Any:
        made = CopiesShareRows(self.capacity, 0)
        made.load_state_dict(self.state_dict())
        made._storage, made._put_one = self._storage, self._put_one
        return made


class CopiesBeginAnew(Odd):
    def __deepcopy__(self, memo: Any) -> Any:
        made = CopiesBeginAnew(self.capacity, 0)
        made.load_state_dict({**self.state_dict(), "generator": torch.Generator().get_state()})
        return made


class LoadsAnything(Odd):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "rewards" in state:
            super().load_state_dict(state)


class HalfLoads(Odd):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.n_added = 0
        super().load_state_dict(state)


class RaisesKeyErrors(Odd):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        try:
            super().load_state_dict(state)
        except ConfigError:
            raise KeyError("rewards") from None


BROKEN: list[tuple[str, Any, str]] = [
    ("counts_what_it_holds", Boastful, "after 9 transitions"),
    ("draws_all_that_it_holds_and_nothing_else", KeepsTheFirst, "of 11 added"),
    ("draws_all_that_it_holds_and_nothing_else", DrawsTheEmpty, r"numbers \[0\] of 3 added"),
    ("the_parts_of_a_transition_stay_together", MixesRows, "next_observations"),
    ("the_parts_of_a_transition_stay_together", FlatBatches, r"observations\[\d\]"),
    ("masks_are_zero_for_terminated_alone", MergesTheEnds, "for EpisodeStatus.TRUNCATED"),
    ("extending_is_adding_one_by_one", ExtendsBackwards, "extended by 3 and 4, state"),
    ("what_is_added_is_copied", ByReference, "after changing an array, state"),
    ("what_is_added_is_copied", Views, "after changing a batch, state"),
    ("the_seed_decides_what_is_drawn", Unseeded, "drawn with one seed"),
    ("the_seed_decides_what_is_drawn", OneSeed, "for another seed"),
    (
        "what_cannot_be_drawn_is_refused",
        DrawsAnything,
        "sampling 1 of 0 raised no error|sampling 0 of 3 raised no error",
    ),
    ("what_cannot_be_drawn_is_refused", RaisesIndexErrors, "IndexError"),
    ("what_cannot_be_drawn_is_refused", DrawsBeforeItRefuses, "after sampling 1 of 0, state"),
    ("a_resume_draws_the_same_batches", ForgetsItsGenerator, "resumed with 0 transitions, batch"),
    ("a_resume_draws_the_same_batches", ForgetsItsCount, "'n_added': 0"),
    ("a_deep_copy_is_independent", CopiesShareRows, "after the copy was used, state"),
    ("a_deep_copy_is_independent", CopiesBeginAnew, "the copy's batch"),
    ("a_foreign_state_is_refused", LoadsAnything, "loading something else raised no error"),
    ("a_foreign_state_is_refused", HalfLoads, "after loading something else, state"),
    ("a_foreign_state_is_refused", RaisesKeyErrors, "KeyError"),
]


@pytest.mark.parametrize(
    ("name", "make", "message"), BROKEN, ids=[f"{name}-{make.__name__}" for name, make, _ in BROKEN]
)
def test_a_broken_promise_is_named(name: str, make: Any, message: str) -> None:
    (check,) = (check for check in check_replay.checks(make) if check.name == name)
    with pytest.raises(ContractViolation, match=message) as caught:
        check.run()
    assert caught.value.check == name


def test_check_replay_runs_the_checks() -> None:
    with pytest.raises(ContractViolation, match="a_foreign_state_is_refused: "):
        check_replay(LoadsAnything)


def test_each_check_is_shown_to_fail() -> None:
    assert {name for name, *_ in BROKEN} == {check.name for check in check_replay.checks(uniform)}
