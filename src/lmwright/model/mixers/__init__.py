"""Sequence mixers, one a file; `ModelConfig.mixer` is the file's name.

A file defines `Mixer(config)`, an `nn.Module` whose forward is `(x_BTD, ctx, layer) -> y_BTD`, and
`keeps_per_token(config)`, which names what it stores for each token and the shape of one token's part.
"""
