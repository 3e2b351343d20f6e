"""Feed-forward layers, one a file; `ModelConfig.feed_forward` is the file's name.

A file defines `FeedForward(config)`, an `nn.Module` whose forward is `(x_BTD) -> y_BTD`.
"""
