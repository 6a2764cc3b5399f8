"""Per-step numbers of a run as tables, so that a step only looks them up.

The ramps are those of StyleGAN2's projector (Karras et al. 2020, appendix D).
"""

from __future__ import annotations

import math


def learning_rate_ramp(t: float, *, ramp_up: float = 0.05, ramp_down: float = 0.25) -> float:
    """Share of the full learning rate at time t in [0, 1): linear up, then half a cosine down."""
    down = min(1.0, (1.0 - t) / ramp_down) if ramp_down > 0 else 1.0
    up = min(1.0, t / ramp_up) if ramp_up > 0 else 1.0
    return (0.5 - 0.5 * math.cos(down * math.pi)) * up


def latent_noise_ramp(t: float, *, length: float = 0.75) -> float:
    """Share of the latent noise at time t in [0, 1): max(0, 1 - t / length)^2."""
    return max(0.0, 1.0 - t / length) ** 2 if length > 0 else 0.0


def adam_corrections(steps: int, beta1: float, beta2: float) -> list[tuple[float, float]]:
    """Adam's bias corrections (1 - beta1^k, sqrt(1 - beta2^k)) for k = 1..steps."""
    return [(1 - beta1**k, math.sqrt(1 - beta2**k)) for k in range(1, steps + 1)]
