"""Formulas that the documents behind this project print wrongly, as models: each is found, its right neighbour passes.

Lecture notes and slides lose minus signs, factors and transposes; whoever implements them as they stand gets a model
that runs. Every erratum that is a formula is a mutant with its number, which a check of the right name must FAIL, and
has a near miss that looks like it and is right: `harness selftest --only E12` tries both.

====  ===============================================================  =============================================
E01   255 x 255 x 255 parameters for an RGB pixel                      256^3 - 1; see also `mutants.estimation`
E02   the quadratic term of log p without 1/2                          -(x - mu)^T Sigma^-1 (x - mu) / 2
E03   the fitted covariance about mu, and what it is divided by        about the fitted mean, by n: `mutants.estimation`
E04   argmax of a sum over infinitely many draws, which is the truth  of the N draws: `mutants.estimation`
E05   gradient descent without its minus sign                          theta - eta grad: `mutants.estimation`
E06   the covariance as one sum over k, and without minus signs        a double sum of (x_k - mu_x)(y_l - mu_y) p(k, l)
E07   I(x; y) as what is left of H(x), KL as a similarity              what H(x) is reduced by; a dissimilarity
E08   a density for a Sigma that is positive semidefinite              positive definite
E09   p(x_0) prod_{i=1..D}                                             D factors, or an x_0 that is certain
E10   P(y | x) = P(y, x)                                               divided by P(x)
E11   the square completed about A^-1 b; A "invertible"; c left over   -A^-1 b; positive definite; c - b^T A^-1 b
E12   E[y_b | y_a] = +Lambda_bb^-1 Lambda_ba y_a                       -Lambda_bb^-1 Lambda_ba y_a
E13   Cov[y_a] = (Lambda_a - B Lambda_a B^T)^-1                        (Lambda_a - B Lambda_b^-1 B^T)^-1
E14   M = (A - B D^-1 C)^-1 called the Schur complement                A - B D^-1 C
E15   |J|, the absolute value of a matrix                              |det J|
E16   the Mahalanobis distance for its square                          D^2 = (x - mu)^T Sigma^-1 (x - mu)
E17   z = x^2 on the range of x                                        (0, a^2]
E18   the change of variables for increasing f only                    |slope|, 1 - P, a sum over branches
E19   argmax of a loss                                                 argmin: `mutants.estimation`
E20   log p(x | y) in the objective of a classifier                    log p(y | x)
E21   H = +E log p, "the maximum accessible value" of a likelihood     H = -E log p, and the maximum is -H
E22   W_i with i columns                                               i - 1, and no W_1
E23   x in R^784 for grey levels                                       masses on {0, ..., 255}^784
E24   minimising KL "equals" maximising E log q                        at the same q; the values differ by H(p)
E25   NADE's W_<i x_<i, whatever < i selects                           the columns < i of one shared W
E26   "auto-regressive models leverage conditional independence"       they condition on all of x_<i
E27   PixelRNN's variants told apart "by the ordering"                 one order, two receptive fields
E28   a Bernoulli on pixels in [0, 1]                                  binarised, or with the normaliser
E29   grad E = E grad                                                  not where the law of the expectation moves
E30   H as if f left it alone                                          H(f(x)) = H(x) + E log |f'(x)|
E31   2^n 1 parameters                                                 2^n - 1
====  ===============================================================  =============================================

Mere names, such as E24's "Model Likelihood Estimation", have no mutant.
"""

from __future__ import annotations

from harness.mutants import errata_factors, errata_gaussian, errata_maps, errata_tables
from harness.mutants.mutant import Mutant, NearMiss

MUTANTS: tuple[Mutant, ...] = (
    *errata_gaussian.MUTANTS,
    *errata_tables.MUTANTS,
    *errata_factors.MUTANTS,
    *errata_maps.MUTANTS,
)
NEAR_MISSES: tuple[NearMiss, ...] = (
    *errata_gaussian.NEAR_MISSES,
    *errata_tables.NEAR_MISSES,
    *errata_factors.NEAR_MISSES,
    *errata_maps.NEAR_MISSES,
)
