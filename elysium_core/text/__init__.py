"""The protocol: prompts, tokens, and the one grammar of boxes that training and inference share."""
