"""Preference losses: parts (scores, links, labels, compare) and the methods built from them."""
