"""Model families: what differs between models that write boxes as text. Everything above knows only the protocol."""
