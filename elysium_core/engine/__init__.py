"""The inference engine: embeddings in, token ids and log-probabilities out. It handles no images, text or boxes."""
