"""Generated images and Markov chains, judged by the features and classes that a network finds."""

import numpy as np
from jaxtyping import Float, Int


def frechet_distance(x: Float[np.ndarray, "M D"], y: Float[np.ndarray, "K D"]) -> float:
    r"""How far apart two sets of features are, taken as Gaussians.

    .. math:: \|\mu_x - \mu_y\|^2 + \mathrm{tr}\left(
              \Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2}\right)

    in squared units of the features; of small sets it is biased upwards, so compare sets of equal
    sizes. The trace of the root is the sum of the singular values of a product of triangular
    factors, which needs no root of a matrix and is never negative. Float64; O((M + K) D^2 + D^3).

    >>> x = np.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> round(frechet_distance(x, x + [3.0, 4.0]), 6)
    25.0

    Args:
      x, y: features, one row an example.

    Raises:
      ValueError: for other shapes, fewer than two rows, or features that are not finite.

    Reference: Dowson and Landau, "The Fréchet Distance between Multivariate Normal Distributions"
    (1982); Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium" (2017), for its use on images.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    for name, rows in (("x", x), ("y", y)):
        if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != x.shape[-1]:
            raise ValueError(f"{name} must have shape [>= 2, {x.shape[-1]}], got {rows.shape}")
        if not np.all(np.isfinite(rows)):
            raise ValueError(f"{name} must be finite")
    first, second = (
        np.asarray(np.linalg.qr((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1), mode="r"))
        for rows in (x, y)
    )
    means = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    traces = np.sum(first**2) + np.sum(second**2)
    shared = np.sum(np.linalg.svd(first @ second.T, compute_uv=False))
    return max(0.0, float(means + traces - 2 * shared))


def class_entropy(classes: Int[np.ndarray, "M"], num_classes: int) -> float:
    """The entropy in nats of how often each class occurs; ``log num_classes`` if all do alike.

    Raises:
      ValueError: for no classes, or some outside ``0 .. num_classes - 1``.
    """
    shares = _shares(classes, num_classes)
    present = shares[shares > 0]
    return max(0.0, float(-np.sum(present * np.log(present))))


def class_coverage(classes: Int[np.ndarray, "M"], num_classes: int, *, least: float = 0.1) -> float:
    """The share of the classes that occur at least ``least`` times as often as if all did alike.

    Raises:
      ValueError: for no classes, or some outside ``0 .. num_classes - 1``.
    """
    return float(np.mean(_shares(classes, num_classes) * num_classes >= least))


def correlation_with_start(
    start: Float[np.ndarray, "M D"], chains: Float[np.ndarray, "M T D"]
) -> Float[np.ndarray, "T"]:
    r"""How much M chains still know of where they started, after each of T steps.

    .. math:: \rho_t = \frac{\sum_d \mathrm{Cov}(f_{0d}, f_{td})}
              {\sqrt{\sum_d \mathrm{Var}(f_{0d}) \sum_d \mathrm{Var}(f_{td})}}

    over the chains: 1 where they did not move, 0 where they forgot; of stationary chains it is
    their autocorrelation. 0 where nothing varies beyond rounding.

    Raises:
      ValueError: for other shapes or fewer than two chains.
    """
    start, chains = np.asarray(start, np.float64), np.asarray(chains, np.float64)
    if start.ndim != 2 or len(start) < 2:
        raise ValueError(f"start must have shape [>= 2, D], got {start.shape}")
    if chains.ndim != 3 or (chains.shape[0], chains.shape[2]) != start.shape:
        wanted = f"[{start.shape[0]}, T, {start.shape[1]}]"
        raise ValueError(f"chains must have shape {wanted}, got {chains.shape}")
    start, chains = (_centred(x) for x in (start, chains))
    shared = np.einsum("md,mtd->t", start, chains)
    norm = np.sqrt(np.sum(start**2) * np.sum(chains**2, axis=(0, 2)))
    return np.divide(shared, norm, out=np.zeros_like(norm), where=norm > 0)


def _centred(x):
    """``x`` less its mean over the first axis; exactly 0 where only rounding is left."""
    mean = x.mean(axis=0)
    rounding = 8 * np.finfo(x.dtype).eps * np.max(np.abs(x), axis=0)
    return np.where(np.abs(x - mean) > rounding, x - mean, 0.0)


def _shares(classes, num_classes):
    classes = np.asarray(classes)
    if classes.ndim != 1 or not classes.size:
        raise ValueError(f"classes must have shape [>= 1], got {classes.shape}")
    if classes.min() < 0 or classes.max() >= num_classes:
        raise ValueError(f"classes must be 0 to {num_classes - 1}")
    return np.bincount(classes, minlength=num_classes) / classes.size
