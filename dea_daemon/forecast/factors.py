"""A covariance as a few common factors and what is each underlying's own: Σ ≈ B Ω Bᵀ + diag(d)."""

import numpy as np

from dea_daemon.domain.instruments import FloatArray

MOST_FACTORS = 20
FLOOR_SHARE = 0.01  # of its variance is an underlying's own, at least


def factor_form(covariance: FloatArray, k: int = MOST_FACTORS) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(B [U, k], omega [k, k], d [U]): every underlying keeps its variance.

    The factors are the k largest principal components of the correlations, so that a restless underlying is not a
    factor by itself. Where k ≥ U nothing is left out: B is the identity, omega the covariance, and d zero.
    `covariance` [U, U] 1/day², PSD with a positive diagonal.
    """
    u = len(covariance)
    if k >= u:
        return np.eye(u), covariance, np.zeros(u)
    vol = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(vol, vol))
    values, vectors = np.maximum(values[-k:], 0.0), vectors[:, -k:]
    common = vectors**2 @ values
    kept = np.minimum(common, 1.0 - FLOOR_SHARE)
    shrink = np.sqrt(kept / np.maximum(common, 1e-300))
    return vectors * (vol * shrink)[:, None], np.diag(values), vol**2 * (1.0 - kept)
