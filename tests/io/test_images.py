"""Image and mask files: each kind is read at its own range, or refused by name."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import captum_pse
from captum_pse._io.images import read_image
from captum_pse._io.masks import CODED, GREY, PALETTE, read_mask
from captum_pse.cli import main
from captum_pse.dissection import BrodenConcepts, FolderConcepts, SegmentationConcepts
from captum_pse.pairs.folders import read_image_folders

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
ONE = BYTES[..., 0]
#: A mask that codes its numbers as R + 256 G.
CODES = BYTES * np.array([1, 1, 0], np.uint8)
BITS = {bits: RNG.integers(0, 2**bits, (5, 6)) for bits in (1, 2, 4, 12, 16)}
COLOURS = RNG.integers(0, 256, (16, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 6, 4))
PLTE = (b"PLTE", COLOURS.tobytes())
ORIENTED = Image.Exif()
ORIENTED[274] = 6
UPRIGHT = Image.Exif()
UPRIGHT[274] = 1

Write = Callable[[Path], object]


def png(
    values: np.ndarray, bits: int, colour: int, *before: tuple[bytes, bytes]
) -> Write:
    """Writes a PNG file of any depth, with chunks before the pixels."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1).astype(">u2" if bits > 8 else "u1")
    if bits < 8:
        spread = rows[..., None] >> np.arange(bits)[::-1] & 1
        rows = np.packbits(spread.reshape(height, -1), axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), *before, (b"IDAT", pixels), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        file += struct.pack(">I", len(data)) + name + data + checksum
    return lambda path: path.write_bytes(file)


def tiff(
    values: np.ndarray,
    photometric: int,
    sample_format: int = 1,
    *,
    planar: bool = False,
) -> Write:
    """Writes a TIFF file with one strip for each plane."""
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]
    planes = np.moveaxis(values, -1, 0) if planar else [values]
    data = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    starts = [8 + sum(map(len, data[:i])) for i in range(len(data))]
    tags: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * samples,
        259: [1],
        262: [photometric],
        273: starts,
        277: [samples],
        278: [height],
        279: [*map(len, data)],
        284: [2 if planar else 1],
        339: [sample_format] * samples,
    }
    after = 8 + sum(map(len, data))
    beyond = after + 2 + 12 * len(tags) + 4
    entries, rest = b"", b""
    for tag, numbers in tags.items():
        field = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(field) > 4:
            field, rest = struct.pack("<I", beyond + len(rest)), rest + field
        entries += struct.pack("<HHI", tag, 3, len(numbers)) + field.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    file = struct.pack("<2sHI", b"II", 42, after) + b"".join(data) + directory + rest
    return lambda path: path.write_bytes(file)


def saved(values: np.ndarray, mode: str | None = None, **options: object) -> Write:
    """Writes values by Pillow, as they are or converted to a mode."""
    image = Image.fromarray(values)
    image = image if mode is None else image.convert(mode)
    return lambda path: image.save(path, **options)


def indexed(
    indices: np.ndarray, colours: np.ndarray = COLOURS, **options: object
) -> Write:
    """Writes indices and their palette by Pillow."""
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(colours.astype(np.uint8).tobytes())
    return lambda path: image.save(path, **options)


def frames(**options: object) -> Write:
    """Writes two frames by Pillow."""
    first, second = (Image.fromarray(side) for side in (BYTES, 255 - BYTES))
    return lambda path: first.save(
        path, save_all=True, append_images=[second], **options
    )


def cut(write: Write, most: int) -> Write:
    """Writes a file, but only its first bytes."""

    def write_part(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[:most])

    return write_part


def with_alpha(values: np.ndarray, alpha: int) -> np.ndarray:
    """An opaque image, but for the opacity of the first pixel."""
    opacity = np.full((*values.shape[:2], 1), np.iinfo(values.dtype).max, values.dtype)
    opacity[0, 0] = alpha
    return np.concatenate([values, opacity], axis=-1)


#: By the file's name: how it is written, and the pixels as fractions.
IMAGES: dict[str, tuple[Write, np.ndarray]] = {
    "rgb 8.png": (saved(BYTES), BYTES / 255),
    "rgb 8.bmp": (saved(BYTES), BYTES / 255),
    "rgb 8.tif": (saved(BYTES, compression="tiff_lzw"), BYTES / 255),
    "rgb 8.webp": (saved(BYTES, lossless=True), BYTES / 255),
    "rgb 8 by hand.png": (png(BYTES, 8, 2), BYTES / 255),
    "rgb 8 by hand.tif": (tiff(BYTES, 2), BYTES / 255),
    "rgb 8 in planes.tif": (tiff(BYTES, 2, planar=True), BYTES / 255),
    "opaque.png": (saved(with_alpha(BYTES, 255)), BYTES / 255),
    "upright.png": (saved(BYTES, exif=UPRIGHT), BYTES / 255),
    "grey.jpg": (saved(np.full((5, 6), 90, np.uint8)), np.full((5, 6), 90 / 255)),
    "grey 8.png": (saved(ONE), ONE / 255),
    "grey 8.bmp": (saved(ONE), ONE / 255),
    "grey and alpha.png": (png(with_alpha(ONE[..., None], 255), 8, 4), ONE / 255),
    "grey 1.png": (png(BITS[1], 1, 0), BITS[1]),
    "grey 2.png": (png(BITS[2], 2, 0), BITS[2] / 3),
    "grey 4.png": (png(BITS[4], 4, 0), BITS[4] / 15),
    "grey 16.png": (png(BITS[16], 16, 0), BITS[16] / 65535),
    "grey 16.tif": (saved(BITS[16].astype("<u2")), BITS[16] / 65535),
    "grey 16 big.tif": (saved(BITS[16].astype(">u2")), BITS[16] / 65535),
    "palette 4.png": (png(BITS[4], 4, 3, PLTE), COLOURS[BITS[4]] / 255),
    "palette 8.gif": (indexed(BITS[4]), COLOURS[BITS[4]] / 255),
    "palette 8.bmp": (indexed(BITS[4]), COLOURS[BITS[4]] / 255),
    "palette 8.tif": (indexed(BITS[4]), COLOURS[BITS[4]] / 255),
    "palette of opaque colours.png": (
        png(BITS[4], 8, 3, PLTE, (b"tRNS", b"\xff\xff")),
        COLOURS[BITS[4]] / 255,
    ),
}


def test_one_module_opens_images():
    opens = re.compile(r"Image\.open|imread|decode_image|read_file\(|pil_to_tensor")
    package = Path(captum_pse.__file__).parent
    found = {p.stem for p in package.rglob("*.py") if opens.search(p.read_text())}
    assert found == {"image_files", "images", "masks"}


@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path, name):
    write, expected = IMAGES[name]
    write(tmp_path / name)
    pixels, facts = read_image(tmp_path / name, "pairs")
    expected = np.dstack([expected] * 3) if expected.ndim == 2 else expected
    wanted = torch.from_numpy(expected.astype(np.float32)).permute(2, 0, 1)
    torch.testing.assert_close(pixels, wanted, rtol=0, atol=1e-7)
    assert facts.lossy == name.endswith("jpg")


TURNED = "got EXIF orientation 6, want pixels stored as they are shown"
TRANSPARENT = "got transparent pixels, want an opaque image"
KEYED = "got a transparent colour, want an opaque image"
TWO = "got 2 frames or pages, want one image"
KEY = (b"tRNS", struct.pack(">3H", *BYTES[0, 0]))

#: Files that are neither images nor masks.
NEITHER: dict[str, tuple[Write, str]] = {
    "rgb 16.png": (png(DEEP[..., :3], 16, 2), "got 16-bit RGB (PNG), want"),
    "rgba 16.png": (png(DEEP, 16, 6), "got 16-bit RGBA (PNG), want"),
    "la 16.png": (png(DEEP[..., :2], 16, 4), "got 16-bit RGBA (PNG), want"),
    "rgb 16.tif": (
        tiff(DEEP[..., :3].astype("<u2"), 2),
        "got 16-bit RGB (TIFF), want",
    ),
    "rgb 16 in planes.tif": (
        tiff(DEEP[..., :3].astype("<u2"), 2, planar=True),
        "got 16-bit RGB (TIFF), want",
    ),
    "float.tif": (
        saved(BITS[16].astype(np.float32)),
        "got 32-bit floating-point (TIFF), want",
    ),
    "float in 0 to 1.tif": (
        saved((ONE / 255).astype(np.float32)),
        "got 32-bit floating-point (TIFF), want",
    ),
    "signed.tif": (
        tiff(ONE.astype(np.int8), 1, 2),
        "got a TIFF image of sample format {2}, want 1",
    ),
    "white is 0.tif": (
        tiff(BITS[16].astype("<u2"), 0),
        "got a TIFF image with 0 for white, want 0 for black",
    ),
    "cmyk.tif": (saved(BYTES, "CMYK"), "got 8-bit CMYK (TIFF), want"),
    "ycbcr.tif": (saved(BYTES, "YCbCr"), "got 8-bit YCbCr (TIFF), want"),
    "lab.tif": (tiff(BYTES, 8), "got 8-bit LAB (TIFF), want"),
    "black and white.bmp": (
        indexed(BITS[1], np.repeat([0, 255], 3)),
        "got a BMP image of 8 bits per pixel in Pillow's mode 1, want 24 bits",
    ),
    "transparent.png": (saved(with_alpha(BYTES, 254)), TRANSPARENT),
    "grey and alpha.png": (png(with_alpha(ONE[..., None], 0), 8, 4), TRANSPARENT),
    "key of rgb.png": (png(BYTES, 8, 2, KEY), KEYED),
    "key of grey.png": (png(BITS[4], 4, 0, (b"tRNS", b"\0\5")), KEYED),
    "key of grey 16.png": (png(BITS[16], 16, 0, (b"tRNS", b"\0\5")), KEYED),
    "transparent palette.png": (
        png(BITS[4], 8, 3, PLTE, (b"tRNS", bytes([255, 255, 7] * 5))),
        TRANSPARENT,
    ),
    "transparent palette.gif": (
        indexed(BITS[4], transparency=int(BITS[4][0, 0])),
        TRANSPARENT,
    ),
    "frames.gif": (frames(), TWO),
    "frames.png": (frames(), TWO),
    "frames.webp": (frames(lossless=True), TWO),
    "pages.tif": (frames(), TWO),
    "turned.png": (saved(BYTES, exif=ORIENTED), TURNED),
    "turned.webp": (saved(BYTES, exif=ORIENTED, lossless=True), TURNED),
    "turned.tif": (saved(BYTES, exif=ORIENTED), TURNED),
    "text.png": (lambda path: path.write_text("text"), "cannot be read (cannot identi"),
    "other format.png": (saved(BYTES, format="PPM"), "cannot be read (cannot identify"),
    "truncated.png": (cut(png(BYTES, 8, 2), 99), "cannot be read (image file is trunc"),
    "truncated.tif": (cut(saved(BYTES), 40), "cannot be read ("),
    "bomb.png": (saved(np.zeros((20, 20), np.uint8)), "could be decompression bomb"),
}

#: Files that are no images, and would be masks or not be masks for another reason.
NOT_IMAGES: dict[str, tuple[Write, str]] = {
    "integer.tif": (
        saved(BITS[12].astype(np.int32)),
        "got 32-bit integer (TIFF), want",
    ),
    "cmyk.jpg": (saved(BYTES, "CMYK"), "got 8-bit CMYK (JPEG), want grey"),
    "frames.jpg": (frames(format="MPO"), TWO),
    "turned.jpg": (saved(BYTES, exif=ORIENTED), TURNED),
    "truncated.jpg": (cut(saved(BYTES), 500), "cannot be read ("),
}


@pytest.mark.parametrize("name", [*NEITHER, *NOT_IMAGES])
def test_images_that_are_refused(tmp_path, monkeypatch, name):
    write, message = {**NEITHER, **NOT_IMAGES}[name]
    write(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError) as raised:
        read_image(tmp_path / name, "pairs")
    assert str(raised.value).startswith(f"pairs: {tmp_path / name}")
    assert message in str(raised.value)


#: By the file's name: how a mask is written, and its numbers.
MASKS: dict[str, tuple[Write, np.ndarray]] = {
    "coded.png": (saved(CODES), CODES[..., 0] + 256 * CODES[..., 1].astype(int)),
    "coded, opaque.png": (
        saved(with_alpha(CODES, 255)),
        CODES[..., 0] + 256 * CODES[..., 1].astype(int),
    ),
    "grey 1.png": (png(BITS[1], 1, 0), BITS[1]),
    "grey 2.png": (png(BITS[2], 2, 0), BITS[2]),
    "grey 4.png": (png(BITS[4], 4, 0), BITS[4]),
    "grey 8.png": (saved(ONE), ONE),
    "grey 16.png": (png(BITS[16], 16, 0), BITS[16]),
    "grey 16 big.tif": (saved(BITS[16].astype(">u2")), BITS[16]),
    "integer.tif": (saved(BITS[16].astype(np.int32)), BITS[16]),
    "grey and alpha.png": (png(with_alpha(ONE[..., None], 255), 8, 4), ONE),
    "palette 1.png": (png(BITS[1], 1, 3, PLTE), BITS[1]),
    "palette 4.png": (png(BITS[4], 4, 3, PLTE), BITS[4]),
    "palette 8.tif": (indexed(BITS[4]), BITS[4]),
    "palette 8.bmp": (indexed(BITS[4]), BITS[4]),
    "lossless.webp": (
        saved(CODES, lossless=True),
        CODES[..., 0] + 256 * CODES[..., 1].astype(int),
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(tmp_path, name):
    write, expected = MASKS[name]
    write(tmp_path / name)
    numbers = read_mask(tmp_path / name, "dataset", (GREY, PALETTE, CODED))
    assert numbers.dtype == torch.int64
    np.testing.assert_array_equal(numbers, expected)


LOSSY = "got lossy compression, which changes numbers, want PNG"
NOT_MASKS: dict[str, tuple[Write, str]] = {
    "blue.png": (
        saved(CODES + np.array([0, 0, 9], np.uint8)),
        "got 9 in channel B, want 0: RGB with the number in R + 256 G",
    ),
    "lossy.jpg": (saved(ONE), LOSSY),
    "lossy.webp": (saved(CODES), LOSSY),
    "lossy.tif": (saved(CODES, compression="jpeg"), LOSSY),
}


@pytest.mark.parametrize("name", [*NEITHER, *NOT_MASKS])
def test_masks_that_are_refused(tmp_path, monkeypatch, name):
    write, message = {**NEITHER, **NOT_MASKS}[name]
    write(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError) as raised:
        read_mask(tmp_path / name, "dataset", (GREY, PALETTE, CODED))
    assert str(raised.value).startswith(f"dataset: {tmp_path / name}")
    assert message in str(raised.value)


def broden(folder: Path, image: Write, mask: Write, number: str = "3") -> Path:
    """A folder of one image and its mask, in Broden's format."""
    (folder / "images").mkdir()
    image(folder / "images" / "a.png")
    mask(folder / "images" / "m.png")
    for name, text in {
        "category.csv": "name\nobject\nscene",
        "c_object.csv": "number,name\n3,cat",
        "c_scene.csv": "number,name\n3,street",
        "index.csv": f"image,object,scene\na.png,m.png,{number}",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


HALF = png(np.full((5, 6), 30000), 16, 0)
COAT = png(np.full((5, 6), 3), 4, 0)


def test_broden_reads_files_at_their_range(tmp_path):
    image, labels = BrodenConcepts(broden(tmp_path, HALF, COAT))[0]
    assert torch.equal(image, torch.full((3, 5, 6), 30000 / 65535))
    assert torch.equal(labels["object"], torch.full((5, 6), 3))


BRODEN: dict[str, tuple[dict[str, object], str]] = {
    "blue": ({"mask": NOT_MASKS["blue.png"][0]}, r"m\.png: got 9 in channel B, want 0"),
    "palette": (
        {"mask": indexed(BITS[4])},
        r"m\.png: got 4-bit palette \(PNG\), want a mask: grey or RGB with the",
    ),
    "deep": ({"image": NEITHER["rgb 16.png"][0]}, r"a\.png: got 16-bit RGB \(PNG\)"),
    "frames": ({"image": NEITHER["frames.png"][0]}, r"a\.png: got 2 frames"),
    "turned mask": (
        {"mask": NEITHER["turned.png"][0]},
        r"m\.png: got EXIF orientation",
    ),
    "superscript": ({"number": "\N{SUPERSCRIPT TWO}"}, "there is no file .*, named in"),
    "digit": (
        {"number": "\N{ARABIC-INDIC DIGIT THREE}"},
        "there is no file .*, named in",
    ),
}


@pytest.mark.parametrize(("part", "message"), BRODEN.values(), ids=BRODEN)
def test_broden_refuses_by_name(tmp_path, part, message):
    folder = broden(tmp_path, **{"image": HALF, "mask": COAT, **part})
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        BrodenConcepts(folder)[0]


@pytest.mark.parametrize(
    "digit", ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}"]
)
def test_numbers_of_broden_have_the_digits_0_to_9(tmp_path, digit):
    folder = broden(tmp_path, HALF, COAT)
    (folder / "c_scene.csv").write_text(
        f"number,name\n{digit},street", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"got number .* in row 2 .*, want 1 or more"):
        BrodenConcepts(folder)


def test_folders_of_concepts(tmp_path):
    for side, write in (("images", HALF), ("masks", indexed(BITS[4]))):
        (tmp_path / side).mkdir()
        write(tmp_path / side / "a.png")
    concepts = FolderConcepts(tmp_path / "images", tmp_path / "masks", {1: "cat"})
    image, labels = concepts[0]
    assert torch.equal(image, torch.full((3, 5, 6), 30000 / 65535))
    np.testing.assert_array_equal(labels["object"], BITS[4])
    NEITHER["rgb 16.png"][0](tmp_path / "images" / "a.png")
    with pytest.raises(ValueError, match=r"dataset: .*a\.png: got 16-bit RGB \(PNG\)"):
        concepts[0]


def test_segmentation_sets_of_opened_files(tmp_path):
    """As torchvision's: images that Pillow has opened, and not yet loaded."""
    HALF(tmp_path / "a.png")
    COAT(tmp_path / "m.png")
    with (
        Image.open(tmp_path / "a.png") as image,
        Image.open(tmp_path / "m.png") as mask,
    ):
        concepts = SegmentationConcepts([(image, mask)], [None, "a", "b", "cat"])
        for _ in range(2):
            pixels, labels = concepts[0]
            assert torch.equal(pixels, torch.full((3, 5, 6), 30000 / 65535))
            assert torch.equal(labels["object"], torch.full((5, 6), 4))


SEGMENTATION = {
    "16 bits": ("rgb 16.png", ONE, ValueError, r"item 0: got 16-bit RGB \(PNG\), want"),
    "two frames": (
        "frames.gif",
        ONE,
        ValueError,
        "item 0: got 2 frames or pages, want",
    ),
    "other format": ("other format.png", ONE, ValueError, "item 0: cannot identify"),
    "turned": ("turned.png", ONE, ValueError, "item 0: got EXIF orientation 6"),
    "mask of colours": (
        None,
        BYTES,
        ValueError,
        r"item 0: got 8-bit RGB \(PIL image\)",
    ),
    "mask of floats": (
        None,
        torch.rand(5, 6),
        TypeError,
        "dataset: item 0: got a mask of torch.float32, want integers",
    ),
}


@pytest.mark.parametrize(
    ("name", "mask", "error", "message"), SEGMENTATION.values(), ids=SEGMENTATION
)
def test_segmentation_sets_that_are_refused(tmp_path, name, mask, error, message):
    write = saved(BYTES) if name is None else NEITHER[name][0]
    write(tmp_path / "a.png")
    mask = mask if isinstance(mask, torch.Tensor) else Image.fromarray(mask)
    with Image.open(tmp_path / "a.png") as image:
        concepts = SegmentationConcepts([(image, mask)], [None, "cat"])
        for _ in range(2):
            with pytest.raises(error, match=message):
                concepts[0]


def test_a_segmentation_set_of_tensors_is_refused():
    concepts = SegmentationConcepts([(torch.rand(3, 5, 6), ONE)], ["cat"])
    with pytest.raises(
        TypeError, match="got Tensor for the image of item 0, want a PIL"
    ):
        concepts[0]


def folders(
    tmp_path: Path, natural: Write, adversarial: Write, ending: str
) -> list[str]:
    """Two folders of one image."""
    for side, write, suffix in (
        ("natural", natural, ".png"),
        ("adversarial", adversarial, ending),
    ):
        (tmp_path / side).mkdir()
        write(tmp_path / side / f"a{suffix}")
    return [str(tmp_path / "natural"), str(tmp_path / "adversarial")]


ROUNDED = {
    "jpeg": (saved(BYTES), saved(255 - BYTES), ".jpg", "have lossy compression"),
    "webp": (saved(BYTES), saved(255 - BYTES), ".webp", "have lossy compression"),
    "8 bits": (
        HALF,
        saved(ONE),
        ".png",
        "have 8 bits per channel beside a natural image",
    ),
}


@pytest.mark.parametrize(
    ("natural", "adversarial", "ending", "message"), ROUNDED.values(), ids=ROUNDED
)
def test_adversarial_images_that_were_rounded(
    tmp_path, natural, adversarial, ending, message
):
    sides = folders(tmp_path, natural, adversarial, ending)
    with pytest.warns(UserWarning, match=rf"1 adversarial image\(s\) {message}"):
        read_image_folders(*sides)


def test_pairs_of_16_bits(tmp_path):
    """Changes below 1/255 stay."""
    grey = BITS[16] // 2
    sides = folders(tmp_path, png(grey, 16, 0), png(grey + 9, 16, 0), ".png")
    x0, x, names = read_image_folders(*sides)
    torch.testing.assert_close(x - x0, torch.full_like(x, 9 / 65535), rtol=0, atol=1e-7)
    assert (x.shape, names) == ((1, 3, 5, 6), ["a"])


@pytest.mark.parametrize(
    "name", ["turned.png", "rgb 16.png", "key of rgb.png", "frames.gif"]
)
def test_the_command_line_refuses_by_name(tmp_path, capsys, name):
    write, message = NEITHER[name]
    sides = folders(tmp_path, saved(BYTES), write, Path(name).suffix)
    model = ["--model", "captum_pse.demo:load_model", "--pairs", *sides]
    assert main(["explain", *model, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert (
        f"error: pairs: {tmp_path / 'adversarial' / 'a'}{Path(name).suffix}: " in error
    )
    assert message in error
