"""The network: vision encoder, token selector, projector, language model. Tensors in, tensors out; knows no text."""
