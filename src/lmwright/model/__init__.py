"""The language model: configuration, layers, state, weights and Hugging Face directories.

Import from the modules; this file imports nothing, so that `model.config` stays free of torch.
"""
