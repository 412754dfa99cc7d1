"""Scores of checkpoints: lm-eval on our own task files and on its own."""
