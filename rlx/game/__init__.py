"""Nash learning: preferences as a game, and losses whose optimum is its equilibrium."""
