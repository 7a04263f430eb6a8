"""Prompts and answers as text and token ids: conversation, questions, box text, tokenizer and layout."""
