"""Bounded numbers to confidence sequences and e-values. Nothing here knows what a model is."""
