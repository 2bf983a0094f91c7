"""Policy-gradient methods: parts (advantages, ratios, surrogates, select, weights, regularize) and methods."""
