"""The derivatives that a population's minimum is searched by, against differences of the loss."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from alignarena.evaluators.exact.optimum import normalised
from alignarena.evaluators.exact.population import Contrast, Term, _Search

LEAVES = 7


def bent(score):
    """Terms whose second derivatives all count, the loss's own in every leaf positive."""
    square = Term(score + score**2 / 20, 1 + score / 10, np.full_like(score, 0.1))
    third = Term(score - score**2 / 30, 1 - score / 15, np.full_like(score, -1 / 15))
    return Contrast(square, third, Term(score**2, 2 * score, np.full_like(score, 2.0)), 1.5)


@pytest.fixture
def search():
    random = np.random.default_rng(0)
    gold, data = random.normal(size=LEAVES), normalised(random.normal(size=LEAVES))
    return _Search(bent, gold, data, np.ones(LEAVES), np.zeros(LEAVES))


def test_first_and_second_derivatives_are_those_of_the_loss(search):
    score = np.random.default_rng(1).normal(size=LEAVES)
    here = search._at(score)
    slope = approx_fprime(score, lambda at: search._at(at).value, 1e-6)
    assert here.gradient == pytest.approx(slope, abs=1e-5)
    hessian = approx_fprime(score, lambda at: search._at(at).gradient, 1e-6)
    assert len(here.pivots) >= 4  # some columns, of different leaves
    wanted = np.diag(here.diagonal)[:, here.pivots] - here.cross
    assert wanted == pytest.approx(hessian[:, here.pivots], abs=1e-5)
