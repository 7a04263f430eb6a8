"""The language model run by transformers' ``generate``, for comparison with the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from elysium_core.families.llama_reference import build_reference
from elysium_core.network.llama import Llama


class HfDecoder:
    """``LlamaForCausalLM`` that shares the weights of one of our decoders.

    Args:
        llm: Our decoder.
        eos_id: Token that ends an answer.

    Attributes:
        passes: Forward passes so far.
        tokens: Input tokens so far.
    """

    def __init__(self, llm: Llama, eos_id: int) -> None:
        self._eos_id = eos_id
        self._model = build_reference(llm)
        self.passes = self.tokens = 0
        self._model.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _model: Any, _arguments: Any, named: dict[str, Any]) -> None:
        fed = named["inputs_embeds"] if named.get("inputs_embeds") is not None else named["input_ids"]
        self.passes += 1
        self.tokens += int(fed.shape[1])

    @torch.inference_mode()
    def generate(self, prompt: Tensor, max_new_tokens: int, forced: Sequence[int] | None = None) -> list[int]:
        """Return the greedy answer to a prompt.

        Args:
            prompt: (T, D) embeddings.
            max_new_tokens: Longest answer.
            forced: Tokens to generate instead of the model's choice, at the same cost.

        Returns:
            Token ids without the end token.
        """
        force = [] if forced is None else [_Force([*forced, self._eos_id])]
        written: list[int] = self._model.generate(
            inputs_embeds=prompt[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=prompt.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self._eos_id,
            pad_token_id=self._eos_id,
            logits_processor=LogitsProcessorList(force),
        )[0].tolist()
        return written[: written.index(self._eos_id)] if self._eos_id in written else written


class _Force(LogitsProcessor):
    """Makes a given answer the most likely one."""

    def __init__(self, answer: Sequence[int]) -> None:
        self._answer = answer

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # Prompts are embeddings, so these are the ids of the answer only.
        token = self._answer[min(input_ids.shape[1], len(self._answer) - 1)]
        forced = torch.full_like(scores, -torch.inf)
        forced[:, token] = 0
        return forced
