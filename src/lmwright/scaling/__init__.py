"""Numbers about models and runs: parameters, FLOPs, memory. Numpy and plain numbers only; no torch."""
