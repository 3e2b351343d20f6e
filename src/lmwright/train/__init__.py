"""Training: one loop for every objective, its optimisers, schedules, checkpoints and log. Knows no inference."""
