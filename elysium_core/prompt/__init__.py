"""Text: conversation, questions, box grammar, tokenizer, and the layout of a prompt as token ids."""
