"""Policy-gradient methods: parts (advantages, ratios, surrogates, select, weights, regularize) and methods.

Tokens stand on the last axis ``[..., K, T]``, responses of a prompt on the one before; leading axes are the batch.
Advantages ``[..., K, 1]`` are broadcast over tokens.
"""
