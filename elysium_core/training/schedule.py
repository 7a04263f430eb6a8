"""Learning rates by step, as a share of the peak."""

from __future__ import annotations

import math


def linear_factor(step: int, steps: int, *, warmup_steps: int, decay_from: float, final: float) -> float:
    """Linear warm-up, flat, linear decay.

    Args:
        step: From 0.
        steps: Of the whole stage.
        warmup_steps: Steps of warm-up.
        decay_from: Share of the steps after which the rate falls, 0..1.
        final: Last rate as a share of the peak, 0..1.
    """
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    progress = step / steps
    if progress <= decay_from:
        return warm
    left = (1 - progress) / max(1e-9, 1 - decay_from)
    return warm * (final + (1 - final) * left)


def cosine_factor(step: int, steps: int, *, warmup_share: float, final: float) -> float:
    """Linear warm-up, then half a cosine down.

    Args:
        step: From 0.
        steps: Of the whole stage.
        warmup_share: Share of the steps for warm-up, 0..1.
        final: Last rate as a share of the peak, 0..1.
    """
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
