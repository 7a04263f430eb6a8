"""The inference engine: embeddings in, tokens and log-probabilities out. Knows no image, text or box."""
