"""Torch modules only: vision encoder, T-Selector and other adapters, projector, LLaMA, KV cache."""
