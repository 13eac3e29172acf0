"""The sets inside scikit-learn: no file and no network needed."""

from typing import Any

import torch

from suites.data.source import DataError, Labelled


def iris() -> Labelled:
    """150 flowers of three kinds: four lengths in cm, float64 (150, 4)."""
    return _labelled("load_iris", (150, 4))


def wine() -> Labelled:
    """178 wines from three growers: 13 chemical measurements."""
    return _labelled("load_wine", (178, 13))


def breast_cancer() -> Labelled:
    """569 tumours, malignant (0) or benign (1): 30 measurements of cell nuclei."""
    return _labelled("load_breast_cancer", (569, 30))


def digits() -> Labelled:
    """1797 handwritten digits of 8 x 8 pixels with 17 levels, 0 to 16: float64 (1797, 64)."""
    return _labelled("load_digits", (1797, 64))


def _labelled(name: str, shape: tuple[int, int]) -> Labelled:
    bunch = getattr(_datasets(), name)()
    x, y = torch.from_numpy(bunch.data), torch.from_numpy(bunch.target).long()
    if x.shape != shape or y.shape != shape[:1]:
        raise DataError(f"scikit-learn's {name} gave {tuple(x.shape)}, not {shape}; install scikit-learn again")
    return Labelled(x, y)


def _datasets() -> Any:
    try:
        from sklearn import datasets
    except ImportError:
        raise DataError("these sets come with scikit-learn: pip install scikit-learn") from None
    return datasets
