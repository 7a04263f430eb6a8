"""transformers' own LLaMA over the weights of ours: the judge of the engine's answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elysium_core.network.llama import Llama, LlamaSize


def build_reference(llm: Llama) -> Any:
    """Make a ``LlamaForCausalLM`` that shares the weights of one of our decoders; it takes no further memory."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(**hf_settings(llm.size))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(llm.state_dict(), assign=True)
    # Its frequencies are not part of the weights and would stay on the meta device.
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(llm.lm_head.weight.device)
    return model.eval()


@torch.inference_mode()
def generate_after(model: Any, prompt: Tensor, eos_id: int, max_new_tokens: int) -> list[int]:
    """The greedy answer of a model of transformers to embeddings (T, D): token ids without the end token."""
    written: list[int] = model.generate(
        inputs_embeds=prompt[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=prompt.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=eos_id,
        pad_token_id=eos_id,
    )[0].tolist()
    return until(written, eos_id)


def until(token_ids: list[int], eos_id: int) -> list[int]:
    """The token ids before the first end token."""
    return token_ids[: token_ids.index(eos_id)] if eos_id in token_ids else token_ids


def hf_settings(size: LlamaSize) -> dict[str, Any]:
    """Return our sizes as arguments of ``LlamaConfig``."""
    settings: dict[str, Any] = {
        "vocab_size": size.vocab,
        "hidden_size": size.width,
        "intermediate_size": size.mlp_width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "rms_norm_eps": size.norm_eps,
        "rope_theta": size.rope_base,
        "tie_word_embeddings": size.tied,
    }
    if size.rope_factor != 1:
        settings["rope_scaling"] = {"rope_type": "linear", "factor": size.rope_factor}
    return settings
