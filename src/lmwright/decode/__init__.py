"""Decoding: what to do with logits until there is text. Knows no pages and no scheduler."""
