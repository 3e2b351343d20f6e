"""Lossless coding with a model: an arithmetic coder, integer frequencies, bytes without a model, token streams."""
