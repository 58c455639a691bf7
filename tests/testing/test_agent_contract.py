"""The suite for agents lets all of stoker's pass, and names the promise that a broken one breaks."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.wrappers import TransformAction, TransformObservation
from msgspec.structs import replace

from stoker import (
    BC,
    DQN,
    IQN,
    SAC,
    TD3,
    ActMode,
    BCConfig,
    DiscreteCQL,
    DiscreteCQLConfig,
    DQNConfig,
    IQNConfig,
    SACConfig,
    TD3Config,
    make_gym,
)
from stoker.agents import AWAC, IQL, PPO, AWACConfig, IQLConfig, PPOConfig
from stoker.replay import UniformReplay
from stoker.testing import ChainEnv, ContractViolation, FakeAgent, check_agent


def from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
Small: Any = from_file(HERE / "small_agent.py").Small
SmallPolicy: Any = Small.make_policy
Reinforce: Any = from_file(HERE.parents[1] / "examples" / "custom_agent.py").Reinforce


def chain() -> ChainEnv:
    return ChainEnv(4, slip=0.1)


def dqn(env: Any = None, **settings: Any) -> DQN:
    env = env or chain()
    config = DQNConfig(**{"learning_starts": 16, "batch_size": 8, "buffer_size": 24, **settings})
    return DQN(env.observation_space, env.action_space, config, seed=3)


def iqn(**settings: Any) -> IQN:
    env = chain()
    config = IQNConfig(**{"learning_starts": 16, "batch_size": 8, "buffer_size": 24, **settings})
    return IQN(env.observation_space, env.action_space, config, seed=3)


def ppo(env: Any, **settings: Any) -> PPO:
    config = PPOConfig(**{"rollout_steps": 16, "n_epochs": 2, "batch_size": 8, **settings})
    return PPO(env.observation_space, env.action_space, config, seed=3)


def off_policy(kind: Any, config_type: Any, **settings: Any) -> Any:
    env = pendulum()
    small = {"learning_starts": 16, "batch_size": 8, "buffer_size": 24, "hidden_sizes": (8,)}
    return kind(env.observation_space, env.action_space, config_type(**small, **settings), seed=3)


def sac(**settings: Any) -> SAC:
    return off_policy(SAC, SACConfig, **settings)


def pendulum() -> Any:
    return make_gym("Pendulum-v1", max_episode_steps=13)


def switches(space: Space[Any]) -> Any:
    return TransformAction(chain(), lambda action: int(np.ravel(action)[0] > 0), space)


def masked(space: Space[Any], n: int) -> Any:
    """A chain with another mask in each step, of which half allow everything."""

    def mask(seen: Any) -> dict[str, Any]:
        allowed = (np.arange(n) + int(seen[0])) % 2 if seen[0] > 1 else np.ones(n)
        allowed[1] = allowed[n - 1] = 1
        return {"seen": seen, "action_mask": allowed.astype(np.int8)}

    env = switches(space)
    shown = Dict({"seen": env.observation_space, "action_mask": MultiBinary(n)})
    return TransformObservation(env, mask, shown)


def cart_pole() -> Any:
    return make_gym("CartPole-v1")


SEVERAL, BINARY = MultiDiscrete([2, 3]), MultiBinary((1, 2))


class Views(gymnasium.ObservationWrapper[Any, Any, Any]):
    """The chain, with its cell shown by these parts."""

    def __init__(self, *names: str) -> None:
        super().__init__(chain())
        kinds: dict[str, Space[Any]] = {
            "cell": Discrete(5, start=1),
            "bits": MultiBinary(2),
            "nested": Dict({"height": Box(-9, 9, (), np.float64)}),
            "tuple": Tuple((Discrete(5), Box(0, 1, (1, 2), np.float32))),
            "camera": Box(0, 255, (4, 5, 2), np.uint8),
            "action_mask": MultiBinary(2),
        }
        self.observation_space = Dict({name: kinds[name] for name in names})

    def observation(self, observation: Any) -> Any:
        cell = int(observation[0])
        parts = {
            "cell": cell + 1,
            "bits": np.array([cell > 1, cell > 2], np.int8),
            "nested": {"height": np.array(cell / 2)},
            "tuple": (cell, np.full((1, 2), cell / 4, np.float32)),
            "camera": np.full((4, 5, 2), 60 * cell, np.uint8),
            "action_mask": np.ones(2, np.int8),
        }
        return {name: parts[name] for name in self.observation_space}


def numbers() -> Any:
    return Views("cell", "bits", "nested", "action_mask")


def camera() -> Any:
    return Views("cell", "nested", "camera", "action_mask")


def tuples() -> Any:
    return Views("cell", "tuple")


def observing(kind: Any, env: Any, config: Any) -> Any:
    return lambda: kind(env().observation_space, env().action_space, config, seed=3)


REPLAYED: dict[str, Any] = {
    "learning_starts": 16, "batch_size": 8, "buffer_size": 24, "hidden_sizes": (16,),
    "normalize_observations": True,
}  # fmt: skip
ROLLED: dict[str, Any] = {
    "rollout_steps": 16,
    "n_epochs": 2,
    "batch_size": 8,
    "normalize_observations": True,
}


AGENTS: list[tuple[str, Any, Any]] = [
    ("fake", lambda: FakeAgent(action=1), chain),
    ("fake-extras", lambda: FakeAgent(action=1, policy_extras=True), chain),
    ("small", Small, chain),
    ("dqn", dqn, chain),
    ("dqn-n-step", lambda: dqn(n_step=3, double=True, normalize_observations=True), chain),
    ("iqn", lambda: iqn(n_step=3, double=True, prioritized=True, normalize_observations=True), chain),
    ("ppo", lambda: ppo(chain()), chain),
    ("ppo-normalizing", lambda: ppo(chain(), normalize_observations=True), chain),
    ("ppo-continuous", lambda: ppo(pendulum()), pendulum),
    ("ppo-several", lambda: ppo(switches(SEVERAL)), lambda: switches(SEVERAL)),
    ("ppo-masked", lambda: ppo(masked(BINARY, 4)), lambda: masked(BINARY, 4)),
    ("dqn-masked", lambda: dqn(masked(Discrete(3), 3), n_step=2), lambda: masked(Discrete(3), 3)),
    ("ppo-state-dependent", lambda: ppo(pendulum(), state_dependent_exploration=True), pendulum),
    ("sac", sac, pendulum),
    ("sac-n-step", lambda: sac(n_step=3, normalize_observations=True, gradient_steps=2), pendulum),
    ("td3", lambda: off_policy(TD3, TD3Config), pendulum),
    ("iql", lambda: off_policy(IQL, IQLConfig, n_step=2, normalize_observations=True), pendulum),
    ("awac", lambda: off_policy(AWAC, AWACConfig), pendulum),
    ("dqn-parts", observing(DQN, numbers, DQNConfig(n_step=3, **REPLAYED)), numbers),
    ("dqn-camera", observing(DQN, camera, DQNConfig(**{**REPLAYED, "learning_starts": 24})), camera),
    ("iqn-tuples", observing(IQN, tuples, IQNConfig(prioritized=True, **REPLAYED)), tuples),
    ("ppo-parts", observing(PPO, numbers, PPOConfig(**ROLLED)), numbers),
    ("ppo-camera", observing(PPO, camera, PPOConfig(**ROLLED)), camera),
    ("cql", observing(DiscreteCQL, chain, DiscreteCQLConfig(n_step=3, prioritized=True, **REPLAYED)), chain),
    ("bc-parts", observing(BC, numbers, BCConfig(**REPLAYED)), numbers),
    ("bc-continuous", observing(BC, pendulum, BCConfig(**REPLAYED)), pendulum),
    ("example", Reinforce, cart_pole),
]


@pytest.mark.parametrize(("name", "make", "env"), AGENTS, ids=[name for name, *_ in AGENTS])
def test_stokers_own_agents_keep_every_promise(name: str, make: Any, env: Any) -> None:
    broken: list[str] = []
    steps = 300 if name == "example" else 50  # of the others, rollouts and replays are full before the half
    for check in check_agent.checks(make, env, steps=steps):
        try:
            check.run()
        except ContractViolation as violation:
            broken.append(str(violation))
    assert broken == []


# Broken ones --------------------------------------------------------------------------------------


class OneActionForAll(SmallPolicy):
    def act(self, observations: Any, mode: Any) -> Any:
        actions, extras = super().act(observations, mode)
        return actions[:1], extras


class OneExtraForAll(SmallPolicy):
    def act(self, observations: Any, mode: Any) -> Any:
        actions, extras = super().act(observations, mode)
        return actions, extras and extras[:1]


class NoActions(SmallPolicy):
    def act(self, observations: Any, mode: Any) -> Any:
        actions, extras = super().act(observations, mode)
        return [action + 1 for action in actions], extras


class TheOthersMatter(SmallPolicy):
    def act(self, observations: Any, mode: Any) -> Any:
        actions, extras = super().act(observations, mode)
        return [(action + place) % 2 for place, action in enumerate(actions)], extras


class TakesOnlyLists(SmallPolicy):
    def act(self, observations: Any, mode: Any) -> Any:
        actions, extras = super().act(observations, mode)
        return [action if type(observations) is list else 1 - action for action in actions], extras


class GreedyAtRandom(SmallPolicy):
    def act(self, observations: Any, mode: Any) -> Any:
        return super().act(observations, ActMode.EXPLORE)


class Shared(SmallPolicy):
    def __init__(self, net: Any, generator: Any) -> None:
        self.net, self.generator = net, generator


class SharesWithoutForks:
    """No PortablePolicy; what it chooses does not show that learning moves its network."""

    def __init__(self, net: Any, generator: Any) -> None:
        self.net, self._inner = net, SmallPolicy(net, generator)

    def act(self, observations: Any, mode: Any) -> Any:
        actions, extras = self._inner.act(observations, mode)
        return (actions, extras) if mode is ActMode.EXPLORE else ([0] * len(observations), extras)


class ForksThatShareTheGenerator(SmallPolicy):
    def fork(self, seed: int) -> Any:
        return type(self)(self.net, self.generator)


class ForksOfNoSeed(SmallPolicy):
    def fork(self, seed: int) -> Any:
        generator = torch.Generator()
        generator.seed()
        return type(self)(self.net, generator)


class LiveWeights(SmallPolicy):
    def weights(self) -> Any:
        return self.net.state_dict()


class ForksThatIgnoreWeights(SmallPolicy):
    def load_weights(self, weights: Any) -> None:
        pass


class NotToBePickled(SmallPolicy):
    def __getstate__(self) -> Any:
        return {"net": self.net, "hook": lambda: None}


class CopiesWithoutWeights(SmallPolicy):
    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.load_weights = lambda weights: None


class FirstPublishesToAll(Small):
    def policy(self) -> Any:
        made = super().policy()
        if not hasattr(self, "made"):
            self.made: list[Any] = []
        self.made.append(made)
        return made

    def publish(self, policy: Any) -> None:
        for made in self.made:
            super().publish(made)


class NeverPublishes(Small):
    def publish(self, policy: Any) -> None:
        pass


class PublishesHalf(Small):
    def publish(self, policy: Any) -> None:
        policy.net.weight.data.copy_(self.net.weight.data)


class CountsSlices(Small):
    def observe(self, experiences: Any) -> None:
        before = self.total_steps
        super().observe(experiences)
        self.total_steps = before + 1


class NeverLearns(Small):
    def learn(self) -> Any:
        return None


class ReportsTensors(Small):
    def learn(self) -> Any:
        metrics = super().learn()
        return metrics and {"loss": torch.tensor(metrics["loss"])}


class ReportsNaN(Small):
    def learn(self) -> Any:
        metrics = super().learn()
        return metrics and {"loss": float("nan")}


class GlobalChance(Small):
    def learn(self) -> Any:
        metrics = super().learn()
        return metrics and {"loss": float(torch.rand(()))}


class GlobalWeights(Small):
    def __init__(self) -> None:
        super().__init__()
        self.net.reset_parameters()


class SeesTheFirstOfASlice(Small):
    def observe(self, experiences: Any) -> None:
        super().observe(experiences)
        super().observe(experiences[:1])
        self.total_steps -= 1


class ExtrasOfText(Small):
    def episode_extras(self, actor_id: Any) -> Any:
        return {"return": "much"}


class ExtrasOfKnownActors(Small):
    def episode_extras(self, actor_id: Any) -> Any:
        return {"return": {0: 1.0, "one": 2.0}[actor_id]}


class OneReturnForAll(Small):
    def episode_extras(self, actor_id: Any) -> Any:
        return {"return": sum(self.returns.values())}


class OneBeginningForAll(Small):
    def on_episode_start(self, actor_id: Any) -> None:
        self.returns.clear()


class CountsBeginnings(Small):
    def on_episode_start(self, actor_id: Any) -> None:
        super().on_episode_start(actor_id)
        self.last = [*self.last[:3], self.last[3] + 1.0] if self.last else []


class StateOfArrays(Small):
    def state_dict(self) -> Any:
        return {**super().state_dict(), "last": np.zeros(3)}


class ForgetsItsGenerator(Small):
    def load_state_dict(self, state: Any) -> None:
        before = self.generator.get_state()
        super().load_state_dict(state)
        self.generator.set_state(before)


class ForgetsItsCount(Small):
    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.total_steps = 0


class ForgetsRunningEpisodes(Small):
    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict({**state, "returns": {}})


class LoadsAnything(Small):
    def load_state_dict(self, state: Any) -> None:
        if "net" in state:
            super().load_state_dict(state)


class RaisesKeyErrors(Small):
    def load_state_dict(self, state: Any) -> None:
        self.net.load_state_dict(state["net"])
        super().load_state_dict(state)


class HalfLoads(Small):
    def load_state_dict(self, state: Any) -> None:
        self.total_steps = state.get("total_steps", 0)
        super().load_state_dict(state)


class Remembers(SmallPolicy):
    def act(self, observations: Any, mode: Any) -> Any:
        actions, extras = super().act(observations, mode)
        return actions, extras and [self.wrap(extra) for extra in extras]

    def wrap(self, extra: float) -> Any:
        return frozenset([extra])


class ExtrasOfAKind(Small):
    make_policy = Remembers

    def observe(self, experiences: Any) -> None:
        for e in experiences:
            super().observe(
                [type(e)(e.observation, e.action, e.reward, e.next_observation, e.status, e.actor_id)]
            )


class TakesNaN(Small):
    def check_observation(self, observation: Any) -> None:
        if np.shape(observation) != (1,):
            super().check_observation(observation)


class TakesAnyShape(Small):
    def check_observation(self, observation: Any) -> None:
        super().check_observation(np.asarray(observation).reshape(-1)[:1])


class LooksAtTheFirstAlone(Small):
    def check_experience(self, experience: Any) -> None:
        self.check_observation(experience.observation)


class RefusesAll(Small):
    def check_observation(self, observation: Any) -> None:
        super().check_observation(None)


class CountsLooks(Small):
    def check_observation(self, observation: Any) -> None:
        super().check_observation(observation)
        self.returns["looks"] = self.returns.get("looks", 0.0) + 1.0


class BatchesBackwards(Small):
    def observe_batch(self, batch: Any) -> None:
        self.observe(batch.experiences()[::-1])


class PassesAllBatches(Small):
    def check_batch(self, batch: Any) -> bool:
        del batch
        return True

    def check_observations(self, observations: Any) -> bool:
        del observations
        return False


class PassesAllObservations(PassesAllBatches):
    def check_batch(self, batch: Any) -> bool:
        del batch
        return False

    def check_observations(self, observations: Any) -> bool:
        del observations
        return True


class WritesIntoObservations(Small):
    def observe(self, experiences: Any) -> None:
        super().observe(experiences)
        experiences[0].next_observation[:] += 1.0


class WritesIntoColumns(Small):
    def observe_batch(self, batch: Any) -> None:
        self.observe(batch.experiences())
        batch.next_observations[:] += 1.0


def passing_all_actions() -> DQN:
    class PassesAllActions(DQN):
        def check_batch(self, batch: Any) -> bool:
            return super().check_batch(replace(batch, actions=np.zeros(len(batch), int)))

    return PassesAllActions(chain().observation_space, chain().action_space)


class LearnsBefore(Small):
    steps_to_learn = 7


def miscounting() -> PPO:
    class Miscounting(PPO):
        @property
        def steps_to_learn(self) -> int:
            return super().steps_to_learn + 1

    env = chain()
    return Miscounting(
        env.observation_space, env.action_space, PPOConfig(rollout_steps=8, batch_size=8), seed=3
    )


class ForgetfulReplay(DQN):
    """Does not bring its replay to where it stood."""

    def end_rebuild(self, reference: Any) -> None:
        pass


class ActsOnAView(Small):
    """Its policy acts on numpy's view of the weights, which a copy leaves behind."""

    def __init__(self) -> None:
        super().__init__()
        self.view = self.net.weight.detach().numpy()

    def publish(self, policy: Any) -> None:
        super().publish(policy)
        policy.net.weight.data.copy_(torch.from_numpy(self.view))

    def policy(self) -> Any:
        made = super().policy()
        self.publish(made)
        return made


class SharesItsWeights(Small):
    def __deepcopy__(self, memo: Any) -> Any:
        return copy.copy(self)


class SavesEveryOther(Small):
    """What it waits for is lost at every second point."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "returns": {}} if self.total_steps % 2 else state


def forgetful() -> DQN:
    env = chain()
    config = DQNConfig(learning_starts=16, batch_size=8, buffer_size=100, n_step=3)
    return ForgetfulReplay(env.observation_space, env.action_space, config)


class AlwaysAnew(DQN):
    def with_settings(self, settings: Mapping[str, Any]) -> Any:
        return self._made_with(self.config)


def always_anew() -> DQN:
    env = chain()
    return AlwaysAnew(env.observation_space, env.action_space)


class OneNoiseForAll(SmallPolicy):
    """Draws for its actors one after the other."""

    def act_for(self, observations: Any, mode: ActMode, actor_ids: Any) -> Any:
        return self.act(observations, mode)

    def end_episode(self, actor_id: Any) -> None:
        pass


def with_policy(kind: type) -> Any:
    return type(f"With{kind.__name__}", (Small,), {"make_policy": kind})


BROKEN: list[tuple[str, Any, str]] = [
    ("acts_once_per_observation", with_policy(OneActionForAll), "1 actions and .* for 2"),
    ("acts_once_per_observation", with_policy(OneExtraForAll), "2 actions and 1 extras for 2"),
    ("acts_once_per_observation", with_policy(NoActions), "an action of Discrete"),
    ("input_is_left_alone", WritesIntoObservations, "what was observed"),
    ("input_is_left_alone", WritesIntoColumns, "what was observed"),
    ("grouping_does_not_change_greedy_actions", with_policy(TheOthersMatter), "one by one"),
    ("grouping_does_not_change_greedy_actions", with_policy(GreedyAtRandom), "when asked"),
    ("grouping_does_not_change_greedy_actions", with_policy(TakesOnlyLists), "when asked as one array"),
    ("policies_are_copies", with_policy(Shared), "a policy after learning"),
    ("policies_are_copies", with_policy(SharesWithoutForks), "a policy after learning"),
    ("policies_are_copies", FirstPublishesToAll, "a policy after publishing to another one"),
    ("publish_brings_a_policy_up_to_date", NeverPublishes, "what policy.. gives"),
    ("publish_brings_a_policy_up_to_date", PublishesHalf, "bias"),
    ("counts_total_steps", CountsSlices, "2 after 4"),
    ("learns_and_reports_metrics", NeverLearns, "None in all of 80 calls"),
    ("learns_and_reports_metrics", ReportsTensors, "'loss': tensor"),
    ("learns_and_reports_metrics", ReportsNaN, "'loss': nan"),
    ("the_same_calls_give_the_same_agent", GlobalChance, r"game\['reports'\]"),
    ("the_same_calls_give_the_same_agent", GlobalWeights, r"game\[.*\n.*from its own generators"),
    ("slices_do_not_matter", SeesTheFirstOfASlice, "equal states"),
    ("extras_are_finite_numbers", ExtrasOfText, "'return': 'much'"),
    ("extras_are_finite_numbers", ExtrasOfKnownActors, "KeyError"),
    ("extras_belong_to_their_actor", OneReturnForAll, "with other rewards for another actor"),
    ("extras_belong_to_their_actor", OneBeginningForAll, "with other rewards for another actor"),
    ("beginning_twice_does_no_harm", CountsBeginnings, r"state\["),
    ("the_state_loads_with_weights_only", StateOfArrays, "UnpicklingError"),
    ("a_resume_is_bit_exact", ForgetsItsGenerator, "explored"),
    ("a_resume_is_bit_exact", ForgetsItsCount, "total_steps=0"),
    ("a_resume_is_bit_exact", ForgetsRunningEpisodes, "'return'"),
    ("a_resume_is_bit_exact", SavesEveryOther, "saved after 1 of 80"),
    ("a_deep_copy_is_independent", ActsOnAView, "'policy'..'weights'"),
    ("a_deep_copy_is_independent", SharesItsWeights, "the agent when its copy learns"),
    ("a_foreign_state_is_refused", LoadsAnything, "of another agent raised no error"),
    ("a_foreign_state_is_refused", RaisesKeyErrors, "KeyError"),
    ("a_foreign_state_is_refused", HalfLoads, "after refusing a state of another agent"),
    ("policy_extras_survive_a_journal", ExtrasOfAKind, "frozenset"),
    ("the_replay_can_be_rebuilt", forgetful, "equal replays|no error"),
    ("its_own_settings_are_no_change", always_anew, "with_settings gave <.*AlwaysAnew"),
    ("input_is_checked", TakesNaN, "check_observation of NaN raised no error"),
    ("input_is_checked", TakesAnyShape, "check_observation of another shape raised no error"),
    (
        "input_is_checked",
        LooksAtTheFirstAlone,
        "check_experience of another shape as next_observation raised no error",
    ),
    ("input_is_checked", RefusesAll, "InvalidExperience: observation=None"),
    ("input_is_checked", CountsLooks, "after checking, state"),
    ("batches_equal_single_experiences", BatchesBackwards, "after batches"),
    ("batches_are_checked", PassesAllBatches, "check_batch passed another shape as observations"),
    ("batches_are_checked", PassesAllObservations, "check_observations passed another shape"),
    ("batches_are_checked", passing_all_actions, "check_batch passed -1 in row 5 of actions"),
    ("steps_to_learn_are_exact", LearnsBefore, "7 steps to learn, then 7 at step 1"),
    ("steps_to_learn_are_exact", miscounting, "metrics with 1 steps to learn at step 8"),
    ("actors_explore_independently", with_policy(OneNoiseForAll), "alone.* together"),
    ("portable_policies_travel", with_policy(ForksThatShareTheGenerator), "two forks of one seed"),
    ("portable_policies_travel", with_policy(ForksOfNoSeed), "two forks of one seed"),
    ("portable_policies_travel", with_policy(LiveWeights), "earlier weights"),
    ("portable_policies_travel", with_policy(ForksThatIgnoreWeights), "with its weights a fork"),
    ("portable_policies_travel", with_policy(NotToBePickled), "no error"),
    ("portable_policies_travel", with_policy(CopiesWithoutWeights), "with its weights a copy"),
]


@pytest.mark.parametrize(
    ("name", "make", "message"), BROKEN, ids=[f"{name}-{make.__name__}" for name, make, _ in BROKEN]
)
def test_a_broken_promise_is_named(name: str, make: Any, message: str) -> None:
    (check,) = (check for check in check_agent.checks(make, chain, steps=80) if check.name == name)
    with pytest.raises(ContractViolation, match=message) as caught:
        check.run()
    assert caught.value.check == name
    assert str(caught.value).startswith(f"{name}: ")
    assert caught.value.promise
    assert caught.value.expected


def test_check_agent_runs_the_checks() -> None:
    check_agent(Small, chain, steps=80)
    with pytest.raises(
        ContractViolation, match=r"input_is_checked: With ``ChecksInput``.*\n.*check_observation of NaN"
    ):
        check_agent(TakesNaN, chain, steps=80)


def test_each_check_is_shown_to_fail() -> None:
    assert {name for name, *_ in BROKEN} == {check.name for check in check_agent.checks(Small, chain)}


def test_a_replay_that_is_saved_wrongly_is_found() -> None:
    class Lossy(UniformReplay):
        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict({**state, "generator": torch.Generator().get_state()})

    def make() -> Any:
        agent = dqn()
        agent._replay = Lossy(100, (1,))
        return agent

    (check,) = (check for check in check_agent.checks(make, chain) if check.name == "a_resume_is_bit_exact")
    with pytest.raises(ContractViolation, match="saved after 0 of 300 transitions: then"):
        check.run()
