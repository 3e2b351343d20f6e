"""Text: the one tokenizer that packing, training, evaluation and generation share."""
