"""A training step that stays on the GPU."""
