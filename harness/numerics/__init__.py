"""Numerical integration and enumeration of black-box log-densities, with bounds on the error; knows no model."""

from harness.numerics.cubature import integrate_nd
from harness.numerics.enumeration import enumerate_grid, enumerate_integers, log_sum_exp_streaming, sum_states
from harness.numerics.integral import Function, Integral, LogDensity, power, surprisal
from harness.numerics.location import Located, locate
from harness.numerics.quadrature import integrate

__all__ = [
    "Function",
    "Integral",
    "Located",
    "LogDensity",
    "enumerate_grid",
    "enumerate_integers",
    "integrate",
    "integrate_nd",
    "locate",
    "log_sum_exp_streaming",
    "power",
    "sum_states",
    "surprisal",
]
