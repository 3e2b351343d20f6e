"""Evaluation: what a model's outputs are worth. Knows nothing of the model's family, nor of who asked."""
