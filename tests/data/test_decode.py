import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, scene
from PIL import Image, ImageOps, features

from mirada.data import decode as decoding
from mirada.data.decode import UndecodableImage, decode, to_canvas


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def close(image: Image.Image, expected: Image.Image, tolerance: float) -> bool:
    return image.size == expected.size and np.abs(pixels(image) - pixels(expected)).mean() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "QOI"])
def test_lossless_formats_keep_every_pixel(kind):
    assert (pixels(decode(encoded(scene(), kind))) == pixels(scene())).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "HEIF", "JPEG2000", "GIF"])
def test_lossy_formats_come_close(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert close(decode(encoded(scene(), kind)), scene(), 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("at_least", [None, 10])
def test_exif_rotation_is_applied(orientation, at_least):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = scene(80, 56)
    data = encoded(image, "JPEG", exif=exif, quality=95)
    stored = Image.open(io.BytesIO(data))
    upright = ImageOps.exif_transpose(stored)
    found = decode(data, at_least=at_least)
    assert found.size == (upright.size if at_least is None else tuple(side // 4 for side in upright.size))
    assert close(found, upright.convert("RGB").resize(found.size, Image.Resampling.BOX), 4)


def test_a_broken_exif_block_does_not_cost_the_picture():
    assert decode(encoded(scene(), "JPEG", exif=b"Exif\0\0nonsense")).size == (64, 48)


@pytest.mark.parametrize(("at_least", "size"), [(500, (640, 480)), (240, (320, 240)), (241, (640, 480)),
                                                (100, (160, 120)), (1, (80, 60))])  # fmt: skip
def test_a_jpeg_is_reduced_only_as_far_as_both_sides_allow(at_least, size):
    assert decode(encoded(scene(640, 480), "JPEG"), at_least=at_least).size == size


def test_other_formats_ignore_at_least():
    assert decode(encoded(scene()), at_least=4).size == (64, 48)


def test_cmyk_jpeg():
    found = decode(encoded(scene().convert("CMYK"), "JPEG", quality=95))
    assert close(found, scene(), 6)


def test_adobe_inverted_cmyk_is_not_a_negative():
    """Photoshop stores 255 - ink and says so in an APP14 marker; white must stay white."""
    plain = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert pixels(decode(plain)).min() > 250
    assert b"Adobe" in plain  # Pillow writes CMYK as Photoshop does


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = pixels(decode(encoded(Image.fromarray(values))))
    assert np.abs(found[..., 0].ravel() - np.arange(256)).max() <= 1
    assert (found[..., 0] == found[..., 2]).all()


def test_float_tiff_is_stretched():
    found = pixels(decode(encoded(Image.fromarray(np.linspace(-2, 3, 16, dtype=np.float32).reshape(4, 4)), "TIFF")))
    assert (found.min(), found.max()) == (0, 255)
    assert decode(encoded(Image.fromarray(np.full((4, 4), 7, np.float32)), "TIFF")).getpixel((0, 0)) == (0, 0, 0)


def test_what_is_no_number_does_not_darken_the_rest():
    values = np.linspace(-2, 3, 16, dtype=np.float32).reshape(4, 4)
    values[0, 1], values[0, 2] = np.nan, np.inf
    found = pixels(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert (found.ravel()[0], found.ravel()[1], found.ravel()[2], found.ravel()[-1]) == (0, 0, 255, 255)
    assert len(np.unique(found)) == 14
    with pytest.raises(UndecodableImage, match="no pixel is a number"):
        decode(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    found = decode(encoded(image.convert(mode)))
    assert [found.getpixel((x, 0))[1] for x in range(3)] == [255, 127, 0]


def test_palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    found = decode(encoded(image, transparency=0))
    assert [found.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (200, 100, 50)]
    found = decode(encoded(image, transparency=b"\xff\x00"))
    assert [found.getpixel((x, 0)) for x in range(2)] == [(10, 20, 30), (255, 255, 255)]


def test_one_transparent_colour_of_an_rgb_png():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    found = decode(encoded(image, transparency=(1, 2, 3)))
    assert [found.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (9, 9, 9)]


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = decode(data).getpixel((2, 2))
        assert red > 200 > 50 > blue, kind


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey(mode):
    image = Image.new("L", (4, 4), 255).convert(mode)
    assert decode(encoded(image)).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_truncated_file_is_refused_with_a_reason(kind):
    data = encoded(Image.effect_noise((64, 48), 90), kind)
    with pytest.raises(UndecodableImage, match=r"broken|not an image") as error:
        decode(data[: len(data) // 2])
    assert "\n" not in error.value.reason


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "the file is empty"),
    (b"\x89PNG\r\n\x1a\n", "broken PNG header"),
    (b"\xff\xd8\xff", "broken JPEG"),
    (b"hello, world", "not an image"),
    (b"Pictures of cats", "not an image"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image"),
    (b"P5 0 4 255\n", "broken PPM|no pixels|not an image"),
    (b"\0" * 100, "not an image"),
])  # fmt: skip
def test_what_is_no_image_says_so(data, reason):
    with pytest.raises(UndecodableImage, match=reason):
        decode(data)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header():
    with pytest.raises(UndecodableImage, match="20000x20000 pixels are more than"):
        decode(png_header(20000, 20000))


def test_a_large_image_below_the_limit_neither_warns_nor_fails():
    """Pillow warns above 89 million pixels, and warnings are errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(encoded(Image.new("L", (9600, 9600)), "JPEG"), at_least=1200)
    assert image.size == (1200, 1200)


@pytest.mark.parametrize("brand", [b"mif1", b"msf1", b"heic"])
def test_heic_of_any_brand(brand):
    """AVIF files begin with some of these, too."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    data = bytearray(encoded(Image.new("RGB", (64, 48), (200, 30, 30)), "HEIF"))
    data[8:12] = brand
    image = decode(bytes(data))
    assert image.size == (64, 48)
    assert np.asarray(image).mean((0, 1)) == pytest.approx((200, 30, 30), abs=4)


def test_missing_readers_name_what_to_install(monkeypatch):
    monkeypatch.setattr(decoding, "readable_formats", lambda: ["PNG"])
    with pytest.raises(UndecodableImage, match=r"pip install 'mirada\[heif\]'"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0")
    with pytest.raises(UndecodableImage, match="AVIF needs Pillow"):
        decode(b"\0\0\0\x18ftypavif\0\0\0\0")


@given(
    st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]), st.integers(0, 80)
)
def test_garbage_never_raises_anything_else(noise, kind, start):
    data = encoded(Image.new("RGB", (8, 8), "teal"), kind)
    with warnings.catch_warnings(), suppress(UndecodableImage):
        warnings.simplefilter("ignore")
        assert decode(data[:start] + noise + data[start + len(noise) :]).mode == "RGB"


def test_threads_decode_alike():
    data = [encoded(scene(40 + number, 30), "JPEG") for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        for one, other in zip(threads.map(decode, data * 5), map(decode, data * 5), strict=True):
            assert one.tobytes() == other.tobytes()


def test_canvas_squashes_and_remembers_the_aspect():
    canvas, aspect = to_canvas(scene(64, 48), 32)
    assert canvas.shape == (3, 32, 32)
    assert canvas.dtype == torch.uint8
    assert aspect == pytest.approx(64 / 48)
    assert canvas[0, :, -1].min() > 240 > 20 > canvas[0, :, 0].max()  # red grows to the right
    assert canvas[1, -1].min() > 240 > 20 > canvas[1, 0].max()


@pytest.mark.parametrize("side", [1, 32])
def test_canvas_copies_an_image_of_its_size(side):
    image = scene(side, side)
    canvas, aspect = to_canvas(image, side)
    assert (canvas.permute(1, 2, 0).numpy() == np.asarray(image)).all()
    assert aspect == 1


@pytest.mark.parametrize(("size", "side"), [((61, 47), 32), ((20, 90), 40), ((300, 3), 16), ((1, 1), 8)])
def test_canvas_filters_as_pillow_does(size, side):
    image = Image.fromarray(np.random.default_rng(0).integers(60, 196, (size[1], size[0], 3), dtype=np.uint8))
    pillow = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=int)
    assert np.abs(to_canvas(image, side)[0].permute(1, 2, 0).numpy() - pillow).max() <= 1
