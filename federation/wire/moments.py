"""Moments: what clients that learn in closed form send, and checks of them. For both sides.

Two arrays: the upper triangle of the mean of x xT, row by row, and the mean of x yT. x are the features of an image
with a 1 at their end [n], y is 1 for its class and 0 for the others [classes]. A mean over several clients' images is
the mean of their moments, weighted by how many images each has: what FedAvg computes.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

TOLERANCE = 0.01  # because float16 is rounded


def triangle_of(matrix: np.ndarray) -> np.ndarray:
    """The upper triangle of a symmetric matrix [n, n], row by row: n * (n + 1) / 2 numbers."""
    return matrix[np.triu_indices(len(matrix))]


def matrix_of(triangle: np.ndarray) -> np.ndarray:
    """The symmetric matrix with that upper triangle, in float64 [n, n]."""
    n = math.isqrt(2 * len(triangle))
    matrix = np.empty((n, n))
    rows, columns = np.triu_indices(n)
    matrix[rows, columns] = matrix[columns, rows] = triangle
    return matrix


def are_moments(model: Sequence[np.ndarray]) -> bool:
    """Whether a model has the shapes of moments, which no other model has."""
    if [array.ndim for array in model] != [1, 2]:
        return False
    n = len(model[1])
    return len(model[0]) == n * (n + 1) // 2


def check_moments(model: Sequence[np.ndarray]) -> None:
    """Raise ValueError if finite arrays of these shapes cannot be the moments of any images."""
    matrix, products = matrix_of(model[0]), model[1].astype(np.float64)
    means = matrix[-1]  # of x
    if abs(means[-1] - 1) > TOLERANCE:
        raise ValueError(f"its moments are invalid: the mean of 1 is {means[-1]:.4g} there")
    if (np.abs(products.sum(1) - means) > TOLERANCE * (1 + np.abs(means))).any() or products[-1].min() < 0:
        raise ValueError("its moments are invalid: each image has one class, but they say otherwise")
    scale = np.trace(matrix) / len(matrix)
    try:  # the inputs are rounded: add a little, much less than for a solution
        np.linalg.cholesky((matrix + 10 * TOLERANCE * scale * np.eye(len(matrix))).astype(np.float32))
    except np.linalg.LinAlgError:
        raise ValueError("its moments are invalid: their matrix is not positive definite") from None
