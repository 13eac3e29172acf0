"""Pictures of digits: bytes that are an image, colours there and back, models with a step or two of training."""

import base64
import struct
import zlib

import pytest
import torch
from torch import Generator

from reference_impls.restoration import colorization
from suites.data import Labelled
from suites.real_data import digits, pictures
from suites.real_data.gallery import CAPTIONS, gallery
from suites.results_page import render

EPS = torch.finfo(torch.float32).eps


def generator(seed=0):
    return Generator().manual_seed(seed)


def decoded(data):
    """(h, w, channels) levels of a PNG whose lines have no filter."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    parts, place = {}, 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + body),)
        parts[kind], place = body, place + 12 + length
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    w, h, depth, colour, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    channels = {0: 1, 2: 3}[colour]
    lines = torch.tensor(list(zlib.decompress(parts[b"IDAT"]))).reshape(h, 1 + w * channels)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(h, w, channels)


def some(n=40):
    x = torch.randint(17, (n, 64), generator=generator(1)).double()
    return Labelled(x, torch.arange(n) % 10)


@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3)])
def test_png_holds_the_image(shape):
    shares = torch.rand(shape, generator=generator())
    read = decoded(pictures.png(shares, zoom=2))
    levels = (255 * shares).round().long().reshape(*shape[:2], -1)
    assert torch.equal(read, levels.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert decoded(pictures.png(torch.tensor([[-1.0, 2.0]]), zoom=1)).flatten().tolist() == [0, 255]


def test_a_sheet_fills_rows_from_left_to_right():
    images = torch.arange(1.0, 7.0)[:, None, None, None].expand(6, 1, 2, 2)
    (sheet,) = pictures.sheet(images, columns=3).permute(2, 0, 1)
    assert sheet.shape == (5, 8)
    assert sheet[::3, ::3].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert not sheet[2].any()
    assert not sheet[:, 2].any()


def test_luma_is_that_of_colorization_and_leads_back():
    """A few roundings of numbers up to 2, divided by the weight 0.114 at least."""
    rgb = torch.rand(5, 3, 8, 8, generator=generator())
    x = digits.to_luma(rgb)
    luma = rgb.flatten(1) @ colorization((3, 8, 8)).mT
    torch.testing.assert_close((x[:, 0].flatten(1) + 1) / 2, luma, rtol=0, atol=8 * EPS)
    torch.testing.assert_close(digits.from_luma(x), rgb, rtol=0, atol=16 * EPS / 0.114)


def test_the_colour_is_that_of_the_label():
    ink = torch.full((20, 8, 8), 0.5)
    rgb = digits.inked(ink, torch.arange(20) % 10, generator())
    assert rgb.amax(1).unique().tolist() == [0.5]
    apart = torch.cdist(rgb[:10, :, 0, 0], rgb[10:, :, 0, 0])
    assert torch.equal(apart.argmin(1), torch.arange(10))


@pytest.mark.parametrize("painter", digits.PAINTERS, ids=lambda painter: painter.name)
def test_a_model_trains_and_draws_ink(painter):
    model = painter.trained(some(200), steps=2)
    labels = torch.arange(10).repeat(2)
    ink, again = (painter.draws(model, labels) for _ in range(2))
    assert ink.shape == (20, 8, 8)
    assert bool(((ink >= 0) & (ink <= 1)).all())
    assert torch.equal(ink, again)
    assert not torch.equal(ink, painter.draws(model, labels, seed=1))
    assert not torch.equal(ink, painter.draws(painter.trained(some(200), steps=0), labels))


def test_what_is_known_is_kept(monkeypatch):
    """Two steps of training: completions are poor, and what was known is as it was."""
    train, test = some(200), some(10)
    picture = pictures.inpainted(train, test, steps=2)
    assert picture.shape == (4 * 9 - 1, 10 * 9 - 1)
    rows = picture[: 4 * 9].unfold(0, 8, 9).unfold(1, 8, 9)  # (4, 10, 8, 8)
    truth = 1 - test.x.float().reshape(10, 8, 8) / 16
    known = digits.hole()[0]
    torch.testing.assert_close(rows[3], truth, rtol=0, atol=EPS)
    for row in rows[1:3]:
        torch.testing.assert_close(row[:, known], truth[:, known], rtol=0, atol=4 * EPS)
        assert not torch.equal(row[:, ~known], truth[:, ~known])
    assert rows[0][:, ~known].unique().tolist() == [pytest.approx(0.6)]


def test_colours_have_the_luma_that_was_known():
    """Cutting off at 0 and 1 may change the luma; where nothing is cut off it is that of the truth."""
    train, test = some(200), some(10)
    picture = pictures.coloured(train, test, steps=2)
    rows = picture.unfold(0, 8, 9).unfold(1, 8, 9)  # (4, 10, 3, 8, 8)
    luma = torch.einsum("c,rnchw->rnhw", digits.LUMA, rows)
    inside = ((rows[1:3] > 0) & (rows[1:3] < 1)).all(2)
    assert inside.float().mean() > 0.05
    assert (luma[1:3] - luma[3])[inside].abs().max() < 16 * EPS / 0.114
    torch.testing.assert_close(luma[0], luma[3], rtol=0, atol=8 * EPS)


def test_the_command_writes_small_files(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.setitem(pictures.PICTURES, "digits-gan", lambda train, test: torch.rand(10, 10, generator=generator()))
    assert pictures.main(["--only", "digits-gan", "--to", str(tmp_path)]) == 0
    assert decoded((tmp_path / "digits-gan.png").read_bytes()).shape == (50, 50, 1)
    with pytest.raises(SystemExit) as left:
        pictures.main(["--to", str(tmp_path / "no")])
    assert left.value.code == 2
    assert "create it first" in capsys.readouterr().err


def test_the_page_shows_what_is_there(tmp_path):
    assert set(CAPTIONS) == set(pictures.PICTURES)
    assert gallery(tmp_path) == []
    assert "python -m suites.real_data.pictures" in render({})
    body = pictures.png(torch.zeros(2, 2))
    (tmp_path / "digits-vae.png").write_bytes(body)
    (picture,) = gallery(tmp_path)
    page = render({}, [picture])
    assert base64.b64encode(body).decode() in page
    assert "img-src data:" in page


def test_kept_pictures_are_small():
    kept = [pictures.RESULTS / f"{name}.png" for name in CAPTIONS]
    assert all(path.stat().st_size < 150_000 for path in kept)
