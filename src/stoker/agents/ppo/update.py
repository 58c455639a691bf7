"""One update of PPO: several epochs of minibatches over one rollout (Schulman et al. 2017, Algorithm 1)."""

from __future__ import annotations

import copy

import numpy as np
import torch

from stoker.agents.packing import PackedWeights
from stoker.agents.ppo.config import PPOConfig
from stoker.agents.ppo.distributions import Distribution
from stoker.agents.ppo.losses import Losses, Samples, ppo_losses
from stoker.agents.ppo.network import ActorCritic
from stoker.agents.ppo.optimizer import ClippingAdam
from stoker.errors import TrainingDiverged

__all__ = ["update"]


def update(
    network: ActorCritic,
    weights: PackedWeights,
    optimizer: ClippingAdam,
    distribution: Distribution,
    samples: Samples,
    generator: np.random.Generator,
    config: PPOConfig,
    total_steps: int,
) -> dict[str, float]:
    """Let the network learn from the transitions of a rollout.

    Each epoch goes through all of them, shuffled anew; the last minibatch of it may be smaller. With
    ``target_kl`` it ends before the first minibatch on which the policy has moved too far.

    Args:
        network: what learns.
        weights: the network's.
        optimizer: of these weights.
        distribution: what the network's parameters mean.
        samples: the rollout.
        generator: what it is shuffled by.
        config: the settings.
        total_steps: environment steps so far, which the schedules go by.

    Returns:
        The mean of each of ``Losses`` over the minibatches, of ``approx_kl`` over those of the last epoch, by
        name; the ``learning_rate`` and ``clip_range`` that were used; and ``n_epochs``, how many went to
        their end.

    Raises:
        TrainingDiverged: A loss or a gradient is not finite. Weights and optimizer are as they were before.
    """
    learning_rate, clip_range = config.learning_rate_at(total_steps), config.clip_range_at(total_steps)
    values_before, optimizer_before = weights.values.clone(), copy.deepcopy(optimizer.state_dict())
    device = samples.returns.device
    most_kl = None if config.target_kl is None else 1.5 * config.target_kl
    epochs: list[torch.Tensor] = []  # of each, a row per minibatch
    n_whole = 0
    for _ in range(config.n_epochs):
        order = torch.as_tensor(generator.permutation(len(samples.returns))).to(device)
        rows: list[torch.Tensor] = []
        is_whole = True
        for indices in order.split(config.batch_size):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            losses = _losses_of(network, distribution, samples.rows(indices), clip_range, config)  # pyright: ignore[reportUnknownArgumentType]
            if most_kl is not None and losses.approx_kl.item() > most_kl:
                rows.append(_row(losses, torch.zeros_like(losses.loss)))
                is_whole = False
                break
            norm = optimizer.step(losses.loss, learning_rate)
            rows.append(_row(losses, norm))
        epochs.append(torch.stack(rows).cpu())  # the device is waited for once an epoch
        if not epochs[-1].isfinite().all():
            weights.values.copy_(values_before)
            optimizer.load_state_dict(optimizer_before)
            raise _diverged(epochs[-1], config, total_steps)
        n_whole += is_whole
        if not is_whole:
            break
    columns = torch.cat(epochs).mean(dim=0)
    metrics = {name: columns[column].item() for column, name in enumerate(Losses._fields)}
    metrics["approx_kl"] = epochs[-1][:, Losses._fields.index("approx_kl")].mean().item()
    return {**metrics, "learning_rate": learning_rate, "clip_range": clip_range, "n_epochs": float(n_whole)}


def _losses_of(
    network: ActorCritic, distribution: Distribution, batch: Samples, clip_range: float, config: PPOConfig
) -> Losses:
    parameters, values = network.body(batch.inputs)
    log_probs, entropies = distribution.evaluate(parameters, network.log_std, batch.actions)
    return ppo_losses(batch, log_probs, entropies, values, clip_range, config)


def _row(losses: Losses, norm: torch.Tensor) -> torch.Tensor:
    return torch.stack([losses.loss.detach(), *losses[1:], norm])


def _diverged(rows: torch.Tensor, config: PPOConfig, total_steps: int) -> TrainingDiverged:
    first = rows[~rows.isfinite().all(dim=1)][0]
    loss, norm = first[0].item(), first[-1].item()
    return TrainingDiverged(
        f"PPO diverged: at step {total_steps} a minibatch had loss {loss} and a gradient of norm {norm}; "
        f"lower learning_rate ({config.learning_rate:g}), set max_grad_norm ({config.max_grad_norm}) or "
        "normalize the rewards, and resume from an earlier checkpoint"
    )
