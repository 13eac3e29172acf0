"""Conformance suites, one file to a model family: each model is held to the laws of probability and to an oracle."""
