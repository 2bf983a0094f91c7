"""Reward and preference models."""
