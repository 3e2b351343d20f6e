"""Learning-rate schedules: pure functions of the step.

A file here defines `Settings` (a subclass of `WarmupSettings`) and `factor(step, total, settings)`: the learning
rate of update number `step` (0 .. total - 1) as a fraction of the peak.
"""
