"""The learning rate over the steps of a training of segmenters, and which parameters learn how fast.

Source: the published SegFormer, CFFM, MRCFA and TV3S configurations: AdamW, a rate that falls along a line (polynomial
of power 1), a warm-up, ten times the rate in the head, no weight decay of norms. Own code; that biases do not decay
either, and Mamba's state matrix neither, is ours.
"""

from typing import Any

from torch import nn

WARMUP_STEPS = 1500
WARMUP_SHARE = 10  # ours: where the steps are few, the warm-up takes a tenth of them
FIRST_FACTOR = 1e-6  # of the rate, at the first step of the warm-up
NEVER_DECAYS = (".A_log",)  # Mamba's state matrix, as its authors advise


def warmup_steps(steps: int, wanted: int = WARMUP_STEPS) -> int:
    """Return the steps of the warm-up: those wanted, at most a tenth of all."""
    return min(wanted, steps // WARMUP_SHARE)


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0.

    Args:
        step: 0 to `steps` - 1.
        steps: In all; at this number the factor would be 0.
        warmup: Steps over which the factor grows from almost nothing to what it would be without a warm-up.
    """
    factor = 1 - step / steps
    if step < warmup:
        factor *= 1 - (1 - step / warmup) * (1 - FIRST_FACTOR)
    return factor


def parameter_groups(network: nn.Module, rate: float, head_factor: float, decay: float) -> list[dict[str, Any]]:
    """Sort trainable parameters into the groups of an optimiser.

    Args:
        network: Parameters of parts called "...head" are the head's.
        rate: Learning rate of all others.
        head_factor: Factor of the head's rate.
        decay: Weight decay of matrices and kernels; what has one dimension (biases, norms) does not decay.

    Returns:
        Up to four groups with "params", "lr", "weight_decay", and for the schedule the highest rate as "peak"; no
        parameter is in two.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(NEVER_DECAYS)
            groups.setdefault((is_of_head(name), decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * (head_factor if of_head else 1.0),
            "peak": rate * (head_factor if of_head else 1.0),
            "weight_decay": decay if decays else 0.0,
        }
        for (of_head, decays), parameters in groups.items()
    ]


def is_of_head(name: str) -> bool:
    """Tell whether a parameter belongs to a head: `decode_head.linear_pred.weight` does."""
    return name.split(".", 1)[0].endswith("head")
