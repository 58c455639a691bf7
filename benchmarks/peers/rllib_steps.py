"""Environment steps per second of RLlib's env runners; the last line is the rates as JSON.

Runs in an environment that has RLlib: ``python rllib_steps.py '{"env": "waiting", "learn": "dqn", ...}'``.
Without learning, each env runner is asked for its next fragment as soon as its last one has arrived, and gets
no weights: the most that RLlib's sampling can give. DQN and PPO train by ``Algorithm.training_step``.
"""

import json
import logging
import sys
import time

import ray
from cluster_envs import Waiting, burning
from ray.cluster_utils import Cluster
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

ENVS = {"waiting": Waiting, "burning": burning}
LIFETIME = "num_env_steps_sampled_lifetime"

asked = json.loads(sys.argv[1])
n_runners, n_envs, fragment = asked["runners"], asked["envs"], asked["fragment"]
n_steps_a_round = n_runners * n_envs * fragment


def config():
    """64 steps an update with DQN; 2,048 steps and 10 passes in minibatches of 64 with PPO."""
    made = PPOConfig() if asked["learn"] == "ppo" else DQNConfig()
    # The ratio of updates to steps that RLlib makes of this is (runners + 1) / runners of the one given.
    intensity = n_runners / (n_runners + 1)
    training = (
        {"train_batch_size_per_learner": 2_048, "minibatch_size": 64, "num_epochs": 10, "lr": 3e-4}
        if asked["learn"] == "ppo"
        else {
            "train_batch_size_per_learner": 64,
            "training_intensity": intensity,
            "num_steps_sampled_before_learning_starts": 1_000,
            "lr": 3e-4,
        }
    )
    return (
        made.environment(asked["env"])
        .env_runners(
            num_env_runners=n_runners,
            num_envs_per_env_runner=n_envs,
            gym_env_vectorize_mode=asked["vectorize"],
            rollout_fragment_length="auto" if asked["learn"] == "ppo" else fragment,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64]})
        .training(**training)
    )


def sampled(group, seconds):
    """Steps that arrived within that time."""
    n_arrived, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        ready = group.foreach_env_runner_async_fetch_ready(
            lambda runner: sum(len(episode) for episode in runner.sample()),
            tag="steps",  # else with the answers to calls of the algorithm's own
            timeout_seconds=0.1,
        )
        n_arrived += sum(ready)
    return n_arrived


def trained(algorithm, seconds):
    """Steps that were sampled for the training within that time, and how often it learned."""

    def counts():
        return (
            algorithm.metrics.peek(("env_runners", LIFETIME), default=0),
            algorithm.metrics.peek(
                ("learners", "default_policy", "num_module_steps_trained_lifetime"), default=0
            ),
        )

    first, until = counts(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        algorithm.training_step()
    return [now - before for now, before in zip(counts(), first, strict=True)]


def main():
    """Measure once warm."""
    logging.disable(logging.WARNING)
    for name, factory in ENVS.items():
        register_env(name, factory)
    per_node = -(-n_runners // 2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": per_node, "include_dashboard": False})
    cluster.add_node(num_cpus=per_node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    started = time.perf_counter()
    algorithm = config().build_algo()
    if asked["learn"] == "none":
        first_s = None
        while not sampled(algorithm.env_runner_group, 0.1):
            pass
        first_s = time.perf_counter() - started
        sampled(algorithm.env_runner_group, asked["warmup_s"])
        began = time.perf_counter()
        n = sampled(algorithm.env_runner_group, asked["seconds"])
        found = {"rate": n / (time.perf_counter() - began), "start_s": first_s}
    else:
        trained(algorithm, 0.01)
        first_s = time.perf_counter() - started
        trained(algorithm, asked["warmup_s"])
        began = time.perf_counter()
        n, learned = trained(algorithm, asked["seconds"])
        found = {
            "rate": n / (time.perf_counter() - began),
            "start_s": first_s,
            "replayed": learned / max(1, n),
        }
    print(json.dumps(found), flush=True)
    algorithm.stop()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
