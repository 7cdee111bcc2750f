"""The hub: what the boxes of a programme send, kept for teleradiologists to read, and what these say, sent back."""
