"""Conformance and benchmarks for generative models: does a model obey the laws of probability, and how sure are we?"""
