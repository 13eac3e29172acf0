"""Numerical integration and enumeration of black-box log-densities, with bounds on the error; knows no model."""

from harness.numerics.enumeration import enumerate_grid, enumerate_integers, log_sum_exp_streaming, sum_states
from harness.numerics.integral import Function, Integral, LogDensity, power, surprisal
from harness.numerics.locate import Located, locate
from harness.numerics.quadrature import integrate

__all__ = [
    "Function",
    "Integral",
    "Located",
    "LogDensity",
    "enumerate_grid",
    "enumerate_integers",
    "integrate",
    "locate",
    "log_sum_exp_streaming",
    "power",
    "sum_states",
    "surprisal",
]
