"""Feed-forward layers, one a file; `ModelConfig.feed_forward` is the file's name.

A file defines `FeedForward(config)`, an `nn.Module` whose forward is `(x_BTD, ctx) -> y_BTD`, each row by
itself; activations go through `ctx.elementwise`. tests/contract/test_mixers.py tests every file listed.
"""
