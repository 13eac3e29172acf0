"""Loaders of real data on files made here: what is right is read, what is wrong is met with one line that says what.

No test needs a network: downloads come from a server on this machine. Those on the real files run where HARNESS_DATA
names a folder that holds them.
"""

import gzip
import hashlib
import http.server
import os
import struct
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from suites import data
from suites.data import DataError, binarized_mnist, debd, mnist, old_faithful, source
from suites.data.mnist import read_idx
from suites.data.source import File, locate


@pytest.fixture
def offline(monkeypatch):
    """Neither a folder nor pooch."""
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)


def real(place):
    folder = os.environ.get("HARNESS_DATA")
    here = folder is not None and (Path(folder) / place).is_file()
    return pytest.mark.skipif(not here, reason=f"HARNESS_DATA names no folder with {place}")


# Where a file is


def test_a_file_is_found_by_itself_by_its_folder_and_by_its_place(tmp_path, offline):
    file = File("small/a.csv")
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a.csv").write_text("x")
    for path in (tmp_path, tmp_path / "small", tmp_path / "small" / "a.csv", str(tmp_path)):
        assert locate(file, path) == tmp_path / "small" / "a.csv"
    with pytest.raises(DataError, match=r"holds no small/b.csv; give the file or the folder"):
        locate(File("small/b.csv"), tmp_path)


def test_a_path_comes_before_the_folder_of_the_environment(tmp_path, monkeypatch, offline):
    for name in ("given", "environment"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "environment"))
    assert locate(File("a")).read_text() == "environment"
    assert locate(File("a"), tmp_path / "given").read_text() == "given"


def test_without_a_file_it_says_what_to_do(offline):
    with pytest.raises(DataError, match=r"set HARNESS_DATA .* or install pooch to download http://x"):
        locate(File("a/b", "http://x", "0" * 64))
    with pytest.raises(DataError, match=r"a/b .* cannot be downloaded with a checksum: set HARNESS_DATA"):
        locate(File("a/b"))


def test_a_folder_that_is_not_there_is_named(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"HARNESS_DATA names .*nowhere, which is no folder; name the one that holds a"):
        locate(File("a"))


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a").write_text("x")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for read in (lambda: locate(File("a", sha256="0")), lambda: source.contents(tmp_path / "a")):
        with pytest.raises(DataError, match="a cannot be read: Permission denied; see to its rights"):
            read()


def test_a_changed_file_in_the_folder_is_noticed(tmp_path, monkeypatch, offline):
    (tmp_path / "a").write_text("right")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert locate(File("a", "http://x", hashlib.sha256(b"right").hexdigest())) == tmp_path / "a"
    with pytest.raises(DataError, match="SHA-256 is not the published one; fetch it again"):
        locate(File("a", "http://x", hashlib.sha256(b"wrong").hexdigest()))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_downloads_are_checked(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch", reason="pooch is not installed")
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    (tmp_path / "a").write_text("right")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/a"
    try:
        found = locate(File("a", url, hashlib.sha256(b"right").hexdigest()))
        assert found.read_text() == "right"
        with pytest.raises(DataError, match=r"could not be downloaded .* without a network, set HARNESS_DATA"):
            locate(File("a", url, hashlib.sha256(b"wrong").hexdigest()))
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(DataError, match=r"could not be downloaded .* without a network, set HARNESS_DATA"):
        locate(File("b", url.replace("/a", "/b"), hashlib.sha256(b"b").hexdigest()))  # nobody answers


# DEBD


@pytest.fixture
def tiny_set(tmp_path, monkeypatch, offline):
    """A set of two bits with 3, 2 and 1 draws."""
    shapes = sys.modules["suites.data.debd"].SHAPES
    monkeypatch.setitem(shapes, "tiny", (2, 3, 2, 1))
    for split, lines in {"train": "0,1\n1,1\n0,0\n", "valid": "1,0\n0,0\n", "test": "1,1\n"}.items():
        (tmp_path / f"tiny.{split}.data").write_text(lines)
    return tmp_path


def test_bits_are_read(tiny_set):
    splits = debd("tiny", tiny_set)
    assert splits.train.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert [s.shape[0] for s in splits] == [3, 2, 1]
    assert splits.test.dtype == torch.uint8


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0,1\n1,1\n", "it has 2 lines, not 3"),
        ("0,1\n1,1\n0", "line 3 does not hold 2 bits"),
        ("0,1\n1,1\n0,2\n", "something else than 0, 1 and commas"),
        ("0,1\n1;1\n0,0\n", "something else than 0, 1 and commas"),
        ("", "it has 0 lines, not 3"),
    ],
)
def test_wrong_bits_are_named(tiny_set, text, complaint):
    (tiny_set / "tiny.train.data").write_text(text)
    with pytest.raises(DataError, match=f"tiny.train.data is damaged or not what it should be: .*{complaint}"):
        debd("tiny", tiny_set)


def test_an_unknown_set_is_named():
    with pytest.raises(DataError, match="no set 'nltc': choose one of nltcs, msnbc"):
        debd("nltc")


# MNIST


def idx(*shape, body=None):
    n = int(np.prod(shape))
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + (bytes(n) if body is None else body)


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress], ids=["plain", "gzip"])
def test_idx_is_read(tmp_path, pack):
    path = tmp_path / "x"
    path.write_bytes(pack(idx(2, 2, 3, body=bytes(range(12)))))
    assert read_idx(path, (2, 2, 3)).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (idx(2, 3)[:-1], "holds 5 bytes"),
        (idx(3, 2), r"says \(3, 2\)"),
        (idx(2, 3, 1), "does not begin like an idx file"),
        (b"", "does not begin like an idx file"),
        (b"<html>not found</html>", "does not begin like an idx file"),
        (gzip.compress(idx(2, 3), mtime=0)[:-9], "end-of-stream|damaged"),
        (b"\x1f\x8b" + bytes(30), "damaged"),
    ],
)
def test_wrong_idx_is_named(tmp_path, content, complaint):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as error:
        read_idx(path, (2, 3))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_both_splits_of_mnist_by_their_names(tmp_path, offline):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(10_000, 28, 28), 1))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(10_000, body=bytes([7]) * 10_000))
    x, y = mnist("test", tmp_path)
    assert x.shape == (10_000, 28, 28)
    assert y.unique().tolist() == [7]
    with pytest.raises(ValueError, match="split should be 'train' or 'test', not 'valid'"):
        mnist("valid", tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(10_000, body=bytes([77]) * 10_000))
    with pytest.raises(DataError, match="it has a label 77, where digits 0 to 9 should be"):
        mnist("test", tmp_path)


# Static binarised MNIST


def test_packed_bits_and_text_are_the_same(tmp_path, offline):
    generator = np.random.default_rng(0)
    bits = {k: generator.integers(0, 2, (n, 784), dtype=np.uint8) for k, n in [("train", 50_000), ("valid", 10_000)]}
    bits["test"] = bits["valid"][::-1]
    packed, text = tmp_path / "packed", tmp_path / "text"
    packed.mkdir()
    text.mkdir()
    rows = {k: np.packbits(b, axis=1) for k, b in bits.items()}
    np.savez(packed / "binarized_mnist_packbits.npz", **rows)
    for split, b in bits.items():
        lines = np.full((len(b), 784, 2), ord(" "), dtype=np.uint8)
        lines[..., 0] = b + ord("0")
        lines[:, -1, 1] = ord("\n")
        (text / f"binarized_mnist_{split}.amat").write_bytes(lines.tobytes())
    for folder in (packed, text):
        splits = binarized_mnist(folder)
        assert all(np.array_equal(s.numpy(), bits[k]) for k, s in splits._asdict().items())
    (text / "binarized_mnist_test.amat").write_bytes(b"0 1\n")
    with pytest.raises(DataError, match="has 4 characters, not 15680000"):
        binarized_mnist(text)


def test_wrong_packed_bits_are_named(tmp_path, offline):
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(DataError, match=r"x.npz is damaged"):
        binarized_mnist(path)
    for content in (b"", b"<!DOCTYPE html><html>Not found</html>", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x.npz is damaged .*: it is no .npz file, which is a zip file"):
            binarized_mnist(path)
    np.savez(path, train=np.zeros((3, 98), np.uint8), valid=np.zeros(1), test=np.zeros(1))
    with pytest.raises(DataError, match=r"train is uint8 \(3, 98\), not uint8 \(50000, 98\)"):
        binarized_mnist(path)
    np.savez(path, train=np.zeros((3, 98), np.uint8))
    with pytest.raises(DataError, match="valid"):
        binarized_mnist(path)
    with pytest.raises(DataError, match=r"path .* holds no binarized_mnist/binarized_mnist_train.amat"):
        binarized_mnist(tmp_path / "nowhere")


# Old Faithful, text, scikit-learn


def test_eruptions_are_read_and_wrong_ones_named(tmp_path, offline):
    path = tmp_path / "geyser.csv"
    path.write_text("duration,waiting,kind\n" + "3.6,79,long\n" * 272)
    assert old_faithful(path).shape == (272, 2)
    assert old_faithful(tmp_path)[0].tolist() == [3.6, 79.0]
    for text, complaint in [
        ("duration,waiting,kind\n" + "3.6,79,long\n" * 271, "271 rows, not 272"),
        ("duration,waiting,kind\n" + "3.6,nan,long\n" * 272, "not finite"),
        ("duration,waiting,kind\n" + "3.6,long\n" * 272, "not every row has numbers"),
        ("duration,kind\n3.6,long\n", "not every row has numbers"),
        ("duration,waiting,kind\n3.6\n", "not every row has numbers"),
        ("<!DOCTYPE html>\n<html>Not found</html>\n", "not every row has numbers"),
        ("x" * 200_000 + "\n3.6\n", "not every row has numbers"),
        ("", "0 rows, not 272"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=complaint):
            old_faithful(path)


def test_text_becomes_symbols(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("abracadabraé" * 10, encoding="utf-8")
    train, valid, alphabet = data.text(path)
    assert alphabet == "abcdré"
    assert "".join(alphabet[k] for k in [*train.tolist(), *valid.tolist()]) == "abracadabraé" * 10
    assert (len(train), len(valid)) == (108, 12)
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"no text in UTF-8 .* at byte 2"):
        data.text(path)
    path.write_text("")
    with pytest.raises(DataError, match="0 characters, too few"):
        data.text(path)
    with pytest.raises(DataError, match="is no file; give one"):
        data.text(tmp_path / "missing")
    path.write_text("too short")
    with pytest.raises(DataError, match="9 characters, not 1,115,394"):
        data.tiny_shakespeare(path)


@pytest.mark.parametrize(
    ("load", "shape", "kinds"),
    [
        (data.iris, (150, 4), 3),
        (data.wine, (178, 13), 3),
        (data.breast_cancer, (569, 30), 2),
        (data.digits, (1797, 64), 10),
    ],
)
def test_sets_inside_scikit_learn(load, shape, kinds):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    x, y = load()
    assert (x.shape, y.shape) == (shape, shape[:1])
    assert y.unique().tolist() == list(range(kinds))


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        data.iris()


# The real files


@real("debd/nltcs/nltcs.train.data")
def test_nltcs():
    assert [tuple(s.shape) for s in data.nltcs()] == [(16181, 16), (2157, 16), (3236, 16)]


@real("binarized_mnist/binarized_mnist_packbits.npz")
def test_static_binarised_mnist():
    assert [int(s.sum()) for s in binarized_mnist()] == [5118041, 1028036, 1038896]


@real("mnist/t10k-images-idx3-ubyte.gz")
def test_mnist_has_the_published_bytes():
    x, y = mnist("test")
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *x.shape)
    digest = hashlib.md5(header + x.numpy().tobytes(), usedforsecurity=False).hexdigest()
    assert digest == "2646ac647ad5339dbf082846283269ea"
    assert y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@real("small/geyser.csv")
def test_old_faithful():
    assert old_faithful().mean(0).tolist() == pytest.approx([3.4878, 70.8971], abs=5e-5)  # as published, to 4 digits


@real("text/tinyshakespeare.txt")
def test_tiny_shakespeare():
    train, valid, alphabet = data.tiny_shakespeare()
    assert (len(train) + len(valid), len(alphabet)) == (1_115_394, 65)


def test_every_download_has_a_checksum():
    modules = [sys.modules[f"suites.data.{name}"] for name in ("debd", "mnist", "old_faithful", "text")]
    files = [value for module in modules for value in vars(module).values() if isinstance(value, source.File)]
    assert files
    assert all(len(file.sha256) == 64 for file in files if file.url)
