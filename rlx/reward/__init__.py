"""Reward and preference models: losses of scalar rewards and of preference embeddings."""
