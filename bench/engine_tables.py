"""Tables of ``python -m bench.engine``, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.engine_cost import PackingCost, StreamCost
    from bench.engine_peers import PeerComparison
    from bench.engine_soak import SoakCost


def stream_lines(costs: Sequence[StreamCost]) -> list[str]:
    """Counters of streams with one target."""
    header = (
        f"{'window':<9}{'rate':>7}{'still':>7}{'passes':>8}{'most':>6}{'tokens':>8}{'encodes':>9}{'drafts right':>14}"
        f"{'in 1 pass':>11}{'no box':>8}{'KV held':>9}"
    )
    lines = ["One target, live; counters a frame", header]
    for cost in costs:
        rate = f"{cost.rate_hz:g} Hz"
        line = (
            f"{cost.window:<9}{rate:>7}{cost.repeat_rate:>7.2f}{cost.passes:>8.2f}{cost.passes_max:>6}"
            f"{cost.tokens:>8.1f}{cost.vision_encodes:>9.2f}{cost.acceptance:>14.0%}{cost.whole_answers:>11.0%}"
            f"{cost.departures:>8}{cost.kv_used:>9}"
        )
        lines.append(line)
    return [*lines, ""]


def packing_lines(costs: Sequence[PackingCost]) -> list[str]:
    """Targets together and apart."""
    lines = [
        "Targets together, against a stream for each",
        f"{'window':<9}{'targets':>8}{'tokens':>9}{'apart':>9}{'ratio':>7}{'passes':>8}{'apart':>7}  same boxes",
    ]
    lines += [
        f"{cost.window:<9}{cost.targets:>8}{cost.tokens:>9}{cost.tokens_apart:>9}{cost.token_ratio:>7.2f}{cost.passes:>8}"
        f"{cost.passes_apart:>7}  {cost.identical}/{cost.boxes}"
        for cost in costs
    ]
    return [*lines, ""]


def peer_lines(comparison: PeerComparison) -> list[str]:
    """Ours and transformers', and how many times faster ours is."""
    lines = [
        f"Against transformers' generate: one target, {comparison.frames} frames, clips of {comparison.clip_length}",
        f"{'way':<28}{'passes/frame':>14}{'tokens/frame':>14}{'seconds':>10}  same answers",
    ]
    for peer in comparison.peers:
        seconds = "" if peer.seconds is None else f"{peer.seconds:.3f}"
        same = "" if peer.identical is None else f"{peer.identical}/{peer.answers}"
        lines.append(f"{peer.name:<28}{peer.passes:>14.2f}{peer.tokens:>14.1f}{seconds:>10}  {same}".rstrip())
    for (baseline, ours), ratio in comparison.ratios.items():
        told = ratio.refused
        if not told:
            low, middle, high = ratio.quartiles
            told = f"{middle:.1f}x faster ({low:.1f}..{high:.1f})"
        lines.append(f"{ours} against {baseline}: {told}")
    return [*lines, ""]


def soak_lines(costs: Sequence[SoakCost]) -> list[str]:
    """Long runs."""
    if not costs:
        return []
    header = (
        f"{'window':<9}{'frames':>8}{'vision':>8}{'ms p50':>9}{'p95':>8}{'p99':>8}{'FPS':>8}{'passes early, late':>20}"
        f"{'KV':>12}{'MiB':>8}{'growth':>9}"
    )
    lines = ["Long run, one target", header]
    for cost in costs:
        memory = "?" if cost.memory_mib is None else f"{cost.memory_mib:.0f}"
        growth = "?" if cost.memory_growth is None else f"{cost.memory_growth:+.2%}"
        lines.append(
            f"{cost.window:<9}{cost.frames:>8}{'yes' if cost.vision else 'no':>8}{cost.ms[0]:>9.1f}{cost.ms[1]:>8.1f}"
            f"{cost.ms[2]:>8.1f}{cost.frames_per_second:>8.1f}{f'{cost.passes_early:.2f}, {cost.passes_late:.2f}':>20}"
            f"{f'{cost.kv_early}, {cost.kv_late}':>12}{memory:>8}{growth:>9}"
        )
    return lines
