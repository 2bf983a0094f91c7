"""Training: one sharded, donated step, and the loop around it that resumes to the bit (``python -m rlx.train``)."""
