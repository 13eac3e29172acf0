"""Real data, one small file a source; every loader returns tensors and checks what it read.

A file is looked for at an explicit `path`, then in the folder that the environment variable HARNESS_DATA names, then
downloaded with its checksum, if pooch is installed. scikit-learn's sets come with scikit-learn.

    HARNESS_DATA/  debd/nltcs/nltcs.{train,valid,test}.data      binarized_mnist/binarized_mnist_packbits.npz
                   mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz
                   small/geyser.csv                              text/tinyshakespeare.txt
"""

from suites.data.binarized_mnist import binarized_mnist
from suites.data.debd import debd, nltcs
from suites.data.mnist import mnist
from suites.data.old_faithful import old_faithful
from suites.data.sklearn_sets import breast_cancer, digits, iris, wine
from suites.data.source import DataError, Labelled, Splits
from suites.data.text import text, tiny_shakespeare

__all__ = [
    "DataError",
    "Labelled",
    "Splits",
    "binarized_mnist",
    "breast_cancer",
    "debd",
    "digits",
    "iris",
    "mnist",
    "nltcs",
    "old_faithful",
    "text",
    "tiny_shakespeare",
    "wine",
]
