"""Kernels for statistics over large vocabularies; imports nothing but jax. The public interface is ``rlx.ops``."""
