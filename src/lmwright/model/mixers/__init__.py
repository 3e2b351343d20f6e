"""Sequence mixers, one a file; `ModelConfig.mixer` is the file's name.

A file defines `Mixer(config)`, an `nn.Module` whose forward is `(x_BTD, ctx, layer) -> y_BTD`, and
`keeps_per_token(config)`, which names what it stores for each token, each with its shape (G, K); it may define
`keeps_per_sequence(config)`, which names what it stores for the sequence as a whole, each with any shape (LSTM,
Mamba), and reads and replaces in `ctx.kept(layer)`. tests/contract/test_mixers.py tests every file listed.
"""
