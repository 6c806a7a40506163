"""The passes of a training: steps of AdamW, a rate that falls along a cosine, the best pass kept, and when to stop."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from ..errors import SettingsError
from .metrics_log import MetricsLog

Network = TypeVar("Network", bound=nn.Module)


class PassRecipe(Protocol):
    """What a recipe says of passes."""

    @property
    def epochs(self) -> int:
        """At most so many passes."""
        ...

    @property
    def patience(self) -> int:
        """Passes without a better score after which training stops."""
        ...

    @property
    def rate(self) -> float:
        """Learning rate of the first pass; 0 after the last one."""
        ...

    @property
    def decay(self) -> float:
        """Weight decay."""
        ...


def run_passes(
    network: Network,
    recipe: PassRecipe,
    losses_of: Callable[[int], Iterable[torch.Tensor]],
    judge: Callable[[], tuple[float, dict[str, float]]],
    log: MetricsLog,
) -> tuple[Network, int]:
    """Train a network in place.

    Args:
        network: What is trained.
        recipe: Passes, patience, rate, decay.
        losses_of: Gives the losses of a pass, numbered from 1, one a step; each is computed when it is asked for.
        judge: Gives the score of the network as it is, larger is better, and numbers to log.
        log: Told every pass.

    Returns:
        A copy of the network of the best pass, and the number of passes made.

    Raises:
        SettingsError: If a loss is not finite.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    best, best_score, best_epoch, epoch = network, -1.0, 0, 0
    for epoch in range(1, recipe.epochs + 1):
        losses = []
        for loss in losses_of(epoch):
            if not torch.isfinite(loss):
                raise SettingsError(
                    f"the loss is {loss.item()} in pass {epoch}: lower the learning rate, {recipe.rate}"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        for part in optimiser.param_groups:
            part["lr"] = recipe.rate * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
        network.eval()
        score, numbers = judge()
        log.write(epoch, loss=float(np.mean(losses)) if losses else math.nan, **numbers)
        if score > best_score:
            best, best_score, best_epoch = copy.deepcopy(network), score, epoch
        if epoch - best_epoch >= recipe.patience:
            break
    return best, epoch
