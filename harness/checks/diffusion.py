"""Diffusions: kernels that compose, Bayes backwards, denoisers and scores of the noisy laws, orders of solvers."""

from __future__ import annotations

from harness.checks.law import Check

CHECKS: tuple[Check, ...] = ()
