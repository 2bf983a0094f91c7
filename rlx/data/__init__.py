"""Data: rows of text files become fixed-shape batches of tokens, in an order that is a pure function of the seed."""
