"""Autoregressive models: that the conditionals are laws, strictly causal, and those that the sampler follows."""

from __future__ import annotations

from harness.checks.law import Check

CHECKS: tuple[Check, ...] = ()
