"""Reading image and mask files of every kind."""

import io
import re
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.decoding import read_orientation
from scarce_jax.data.image_files import FileError
from scarce_jax.data.images import (
    decode_image,
    encode_png,
    read_encoded,
    read_ids,
    read_image,
    read_mask,
    write_png,
)
from scarce_jax.data.palettes import Palettes, used_colours
from scarce_jax.errors import InputError
from tests.data.image_kinds import IMAGES, MASKS, TURNS, encoded, palette_image, tiff

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_rgb_is_read_as_stored(tmp_path):
    image = noise(5, 7, 3)
    for name in ("a.png", "a.bmp", "a.tif"):
        Image.fromarray(image).save(tmp_path / name)
        found = read_image(tmp_path / name)
        assert found.dtype == np.uint8 and found.flags.writeable
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    image = noise(4, 6, 3)
    # What a camera stores so that a viewer shows `image` (EXIF 2.32, tag 0x0112).
    stored = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, 1),
        7: np.rot90(image, 2).transpose(1, 0, 2),
        8: np.rot90(image, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_grey_palette_and_bilevel_become_rgb(tmp_path):
    grey = noise(4, 5)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, 2))

    indices = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette(np.array(PALETTE, np.uint8).tobytes())
    picture.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.array(PALETTE, np.uint8)[indices])

    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_image(tmp_path / "bit.png").tolist() == [[[255] * 3, [0] * 3]]


def test_transparent_pixels_have_their_stored_colour(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "rgba.png").tolist() == rgba[..., :3].tolist()
    Image.fromarray(np.array([[[7, 255], [7, 0]]], np.uint8)).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").tolist() == [[[7] * 3, [7] * 3]]
    # A palette entry may be transparent too.
    picture = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    picture.putpalette([9, 9, 9, 50, 60, 70])
    picture.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").tolist() == [[[9] * 3, [50, 60, 70]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path, name, bands):
    deep = np.random.default_rng(0).integers(0, 65536, (4, 5, bands), np.uint16)
    # OpenCV's order is blue, green, red, alpha.
    cv2.imwrite(str(tmp_path / name), deep if bands == 1 else deep[..., [2, 1, 0, 3][:bands]])
    expected = np.broadcast_to((deep >> 8).astype(np.uint8)[..., :3], (4, 5, 3))
    np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    data, size = read_encoded(tmp_path / name)
    np.testing.assert_array_equal(decode_image(data), expected)
    assert size == (4, 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_floats_of_zero_to_one_are_scaled(tmp_path, dtype, shape):
    values = np.random.default_rng(0).random(shape).astype(dtype)
    values.flat[0] = 1
    (tmp_path / "a.tif").write_bytes(tiff(values, 1 if len(shape) == 2 else 2))
    expected = np.rint(values * 255).astype(np.uint8).reshape(4, 5, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.broadcast_to(expected, (4, 5, 3)))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.arange(20, dtype=np.uint16) * 12, r"16-bit pixels of 0 to 228.*if 255 is the highest.*\(255 / 255\)"),
        (np.arange(20, dtype=np.uint16) * 200, r"16-bit pixels of 0 to 3800.*if 4095 is the highest.*\(255 / 4095\)"),
        (np.arange(20, dtype=np.int32), "32-bit pixels of 0 to 19"),
        (np.arange(20, dtype=np.int32) * 70000, r"32-bit pixels of 0 to 1330000.*LOW and HIGH"),
        (np.arange(20, dtype=np.float32), "32-bit float pixels of 0 to 19"),
        (np.arange(20, dtype=np.float32) / 100, "32-bit float pixels of 0 to 0.1899"),
        (-np.arange(20, dtype=np.float64), "64-bit float pixels of -19 to 0"),
        (np.full(20, np.nan, np.float32), "32-bit float pixels with values that are not finite"),
    ],
)
def test_deep_files_of_another_scale_are_refused_with_the_way_out(tmp_path, values, found):
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), values.reshape(4, 5))
    for read in (read_image, read_encoded):
        with pytest.raises(FileError, match=rf"a\.tif: {found}") as caught:
            read(path)
        assert caught.value.kind == "unfit-file"


def test_the_command_for_deep_files_converts_a_folder(tmp_path):
    deep = np.arange(20, dtype=np.uint16).reshape(4, 5) * 200
    for name in ("a.tif", "b c.tif"):
        cv2.imwrite(str(tmp_path / name), deep)
    with pytest.raises(FileError) as caught:
        read_image(tmp_path / "a.tif")
    command = caught.value.advice.partition("run in their folder: ")[2]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True, cwd=tmp_path)
    for name in ("a.png", "b c.png"):
        assert read_image(tmp_path / name)[..., 0].tolist() == (deep * (255 / 4095)).astype(np.uint8).tolist()


def test_a_black_deep_frame_is_black(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 5), np.uint16))
    assert not read_image(tmp_path / "a.png").any()


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red = read_image(tmp_path / "a.jpg")
    assert red.shape == (8, 8, 3) and red[..., 0].min() > 240 and red[..., 1:].max() < 15


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_bad_files_are_named(tmp_path, read):
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, format="JPEG")
    files = {
        "missing.png": (None, "no such file"),
        "empty.png": (b"", r"empty \(0 bytes\)"),
        "text.png": (b"this is text, not an image", r"cannot be decoded \(not an image"),
        "cut.png": (encode_png(noise(64, 64))[:2000], "cannot be decoded"),
        "cut.jpg": (buffer.getvalue()[:-400], "cannot be decoded"),
    }
    for name, (data, reason) in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}: {reason}"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="a folder"):
        read(tmp_path)


def test_a_mask_is_its_stored_ids(tmp_path):
    mask = noise(6, 5)
    write_png(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)
    picture = Image.fromarray(mask).convert("P")
    picture.putdata(mask.reshape(-1).tolist())
    picture.putpalette(noise(256, 3).tobytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "p.png", exif=exif)
    # Turned as its image is.
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), np.rot90(mask, -1))
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_mask(tmp_path / "bit.png").tolist() == [[1, 0]]


def test_ids_of_sixteen_bits_are_kept(tmp_path):
    ids = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(ids).save(tmp_path / "deep.png")
    mask = read_mask(tmp_path / "deep.png")
    assert mask.dtype == np.int64 and mask.tolist() == ids.tolist()


@pytest.mark.parametrize(("bits", "rows"), [(2, (0b00011011,)), (4, (0x01, 0x2F))])
def test_a_grey_mask_of_few_bits_keeps_its_ids(tmp_path, bits, rows):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    data = zlib.compress(bytes([0, *rows]))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2, 3 if bits == 2 else 15]]


def test_masks_of_other_kinds_are_refused(tmp_path):
    write_png(tmp_path / "rgb.png", noise(4, 4, 3))
    with pytest.raises(InputError, match=r"rgb\.png: the mask is a colour image \(mode RGB\).*class id"):
        read_mask(tmp_path / "rgb.png")
    Image.fromarray(noise(4, 4)).save(tmp_path / "grey.jpg")
    with pytest.raises(InputError, match=r"grey\.jpg: the mask is a JPEG file, whose compression changes ids"):
        read_mask(tmp_path / "grey.jpg")


def test_ids_of_two_bytes_in_red_and_green(tmp_path):
    colours = np.zeros((4, 5, 3), np.uint8)
    colours[0, 0] = (232, 3, 0)
    colours[1] = (7, 0, 0)
    write_png(tmp_path / "a.png", colours)
    ids = read_mask(tmp_path / "a.png", two_bytes=True)
    assert ids[0].tolist() == [1000, 0, 0, 0, 0] and (ids[1] == 7).all() and ids.dtype == np.int64
    colours[3, 4, 2] = 1
    write_png(tmp_path / "blue.png", colours)
    with pytest.raises(InputError, match=r"blue\.png: the mask is a colour image"):
        read_mask(tmp_path / "blue.png", two_bytes=True)
    write_png(tmp_path / "grey.png", colours[..., 0])
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png", two_bytes=True), colours[..., 0])


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image_has_the_same_pixels_when_it_is_stored(tmp_path, kind):
    path, expected = IMAGES[kind](tmp_path / "a", noise(12, 12, 3), np.random.default_rng(0))
    if expected is None:
        for read in (read_image, read_encoded):
            with pytest.raises(InputError, match=re.escape(str(path))):
                read(path)
        return
    found = read_image(path)
    if expected is not ...:
        np.testing.assert_array_equal(found, expected)
    data, size = read_encoded(path)
    np.testing.assert_array_equal(decode_image(data), found)
    assert found.dtype == np.uint8 and size == found.shape[:2]


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask_has_its_ids(tmp_path, kind):
    ids = np.random.default_rng(0).integers(0, 3, (10, 10), np.uint8)
    path, expected = MASKS[kind](tmp_path / "a", ids, np.random.default_rng(3))
    if expected is None:
        with pytest.raises(InputError, match=re.escape(str(path))):
            read_mask(path)
        return
    found = read_mask(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", TURNS)
def test_deep_tiffs_are_turned_too(tmp_path, orientation):
    values = np.random.default_rng(0).integers(0, 65536, (3, 5), np.uint16)
    picture = Image.fromarray(values)
    picture.save(tmp_path / "a.tif", tiffinfo={274: orientation})
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), TURNS[orientation](values))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], TURNS[orientation](values) >> 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), TURNS[orientation](values))
    assert read_orientation(tmp_path / "a.tif") == read_orientation(tmp_path / "a.png") == orientation


def test_a_jpeg_is_stored_as_it_is(tmp_path):
    for kind in ("jpg", "jpg-progressive", "png"):
        path, _ = IMAGES[kind](tmp_path / kind, noise(12, 12, 3), np.random.default_rng(0))
        assert read_encoded(path)[0] == path.read_bytes()


@pytest.mark.parametrize(
    ("size", "found"),
    [((13_000, 13_000), "13000 x 13000 pixels, 169 megapixels"), ((20_000, 10_000), r"20000 x 10000 pixels")],
)
def test_too_large_an_image_is_named_and_not_decoded(tmp_path, size, found):
    # The headers say so; nothing else is looked at.
    data = bytearray(encode_png(noise(4, 4)))
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    for read in (read_image, read_mask):
        with pytest.raises(FileError, match=rf"a\.png: {found}.*expected at most 160 megapixels; cut it into tiles"):
            read(tmp_path / "a.png")
    data = bytearray(encoded(Image.fromarray(noise(4, 4)), "BMP"))
    data[18:26] = struct.pack("<II", *size)
    (tmp_path / "a.bmp").write_bytes(data)
    with pytest.raises(FileError, match="megapixels, expected at most 160 megapixels; cut it into tiles"):
        read_image(tmp_path / "a.bmp")


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path):
    # Written by hand: Pillow does not mark them (NewSubfileType, tag 254).
    full, small = noise(8, 8, 3), noise(4, 4, 3)
    Image.fromarray(full).save(
        tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(small)], tiffinfo={254: 0}
    )
    data = bytearray((tmp_path / "a.tif").read_bytes())
    entries = [k for k in range(len(data)) if data[k : k + 8] == struct.pack("<HHI", 254, 4, 1)]
    data[entries[-1] + 8] = 1
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), full)


def test_formats_that_are_not_read_are_told_by_their_content(tmp_path):
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded.*it is a PostScript file"):
        read_image(tmp_path / "a.png")


def test_a_name_over_the_limit_is_one_message(tmp_path):
    with pytest.raises(InputError, match=r"cannot be opened \(File name too long\)"):
        read_image(tmp_path / ("x" * 300 + ".png"))


def test_the_palette_of_a_mask_is_read_with_its_ids(tmp_path):
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    palette_image(ids, np.array([*PALETTE, *[(7, 7, 7)] * 253], np.uint8)).save(tmp_path / "a.png")
    found, palette = read_ids(tmp_path / "a.png")
    assert found.tolist() == ids.tolist() and palette[:3].tolist() == [list(colour) for colour in PALETTE]
    assert used_colours([0, 2, 255], palette) == {0: PALETTE[0], 2: PALETTE[2]}
    write_png(tmp_path / "grey.png", ids)
    assert read_ids(tmp_path / "grey.png")[1] is None
    # The palette that Pillow gives to a grey image says nothing.
    Image.fromarray(ids).convert("P").save(tmp_path / "plain.png")
    assert used_colours([0, 1, 2], read_ids(tmp_path / "plain.png")[1]) == {}


def test_palettes_must_agree_in_the_ids_that_are_used():
    palettes = Palettes()
    palettes.add("a.png", {0: (0, 0, 0), 1: (9, 9, 200)})
    palettes.add("b.png", {0: (0, 0, 0), 2: (5, 5, 5)})
    palettes.add("c.png", {})
    with pytest.raises(
        FileError, match=r"d\.png: .*id 2 is the colour \(6, 6, 6\), in b\.png it is \(5, 5, 5\)"
    ) as caught:
        palettes.add("d.png", {2: (6, 6, 6)})
    assert caught.value.kind == "palettes-differ"
