"""Proximal policy optimisation, of the policies that nothing differentiable leads to."""

import torch
from torch import Tensor, nn

# Of the published code.
CLIP = 0.2  # how far a probability may move from what it was, as a share of it
VALUE_WEIGHT, ENTROPY_WEIGHT = 0.5, 0.01
STABILISER = 1e-5


def ppo_loss(
    log_probabilities: Tensor,
    values: Tensor,
    entropies: Tensor,
    rewards: Tensor,
    *,
    discount: float,
    old_log_probabilities: Tensor | None = None,
) -> Tensor:
    """[]: the clipped surrogate, the critic's error, and minus the entropy, as published.

    Args:
        log_probabilities: [B, n] of the actions that were taken, by the policy that learns.
        values: [B, n] that its critic expects of the (normalised) returns.
        entropies: [B, n] of its distributions.
        rewards: [B, n] of the actions.
        discount: of each further step's rewards, gamma of Eq. 25.
        old_log_probabilities: [B, n] by the policy that acted; None for the same, as in the first update of a batch,
            where nothing is clipped. The published code makes no other.

    Gradients: to the first three.

    Source: Schulman et al., Proximal policy optimization, 2017; Uni-AdaFocus, Appendix B.
    """
    returns = discounted(rewards.detach(), discount)
    returns = (returns - returns.mean()) / (returns.std() + STABILISER)
    old = log_probabilities.detach() if old_log_probabilities is None else old_log_probabilities
    ratios = (log_probabilities - old).exp()
    advantages = returns - values.detach()
    surrogate = torch.minimum(ratios * advantages, ratios.clamp(1 - CLIP, 1 + CLIP) * advantages)
    error = nn.functional.mse_loss(values, returns)
    return VALUE_WEIGHT * error - (surrogate + ENTROPY_WEIGHT * entropies).mean()


def discounted(rewards: Tensor, discount: float) -> Tensor:
    """[B, n]: the sum of each step's reward and all later ones', of rewards [B, n]."""
    returns, later = [], torch.zeros_like(rewards[:, 0])
    for reward in reversed(rewards.unbind(1)):
        later = reward + discount * later
        returns.append(later)
    return torch.stack(returns[::-1], 1)
