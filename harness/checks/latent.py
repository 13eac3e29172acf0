"""Latent-variable models: bounds below the likelihood, calibrated posteriors, gradients of the bound."""

from __future__ import annotations

from harness.checks.law import Check

CHECKS: tuple[Check, ...] = ()
