"""Identities between methods, by family; ``tests/identities_test.py`` checks them."""
