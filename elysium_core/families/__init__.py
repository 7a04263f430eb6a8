"""Model families: one protocol for all models that write boxes as text, and its implementations."""
