"""PyTorch modules: vision encoder, T-Selector and other adapters, projector, LLaMA decoder, KV cache."""
