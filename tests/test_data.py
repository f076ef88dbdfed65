"""Data by name, array and file: what is read is what was written, and bad files say so."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from mogul import InputError, open_source
from mogul.compute.collective import Group
from mogul.data import ArraySource, PixelScale, counterpart, open_labels

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)


def _idx(array, magic=b"\0\0\x08\x03"):
    return magic + struct.pack(">3I", *array.shape) + array.tobytes()


def _all(source):
    return torch.cat([batch.x for batch in source.batches(3)])


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["npy", "npz", "idx", "idx.gz", "folder", "zip"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    path = tmp_path / {"idx": "x-idx3-ubyte", "idx.gz": "x-idx3-ubyte.gz"}.get(kind, f"x.{kind}")
    if kind == "npy":
        np.save(path, PIXELS)
    elif kind == "npz":
        np.savez(path, x=PIXELS, other=np.zeros(2))
    elif kind == "idx":
        path.write_bytes(_idx(PIXELS))
    elif kind == "idx.gz":
        path.write_bytes(gzip.compress(_idx(PIXELS)))
    elif kind == "folder":
        path.mkdir()
        for i, image in enumerate(PIXELS):
            (path / f"img{i + 5}.png").write_bytes(_png(image))  # img5 … img11: natural order
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for i, image in enumerate(PIXELS):
                archive.writestr(f"some/img{i + 5}.png", _png(image))
    source = open_source(path, dequantise=False)
    assert len(source) == 7
    assert source.feature_shape == (5, 4)
    assert source.is_image
    torch.testing.assert_close(_all(source), (torch.tensor(PIXELS).float() + 0.5).flatten(1) / 256)
    np.testing.assert_array_equal(source.to_pixels(_all(source)), PIXELS)
    again = open_source(**source.options)
    torch.testing.assert_close(_all(again), _all(source))


def test_images_are_cropped_resized_and_coloured(tmp_path):
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[3:7, 4:8] = (255, 0, 0)
    (tmp_path / "a.png").write_bytes(_png(pixels))
    red = open_source(tmp_path, crop=(4, 4), dequantise=False)
    assert red.feature_shape == (4, 4, 3)
    np.testing.assert_array_equal(red.to_pixels(_all(red))[0], pixels[3:7, 4:8])
    grey = open_source(tmp_path, size=(5, 6), colour=False)
    assert grey.feature_shape == (5, 6)
    half = open_source(tmp_path, size=(5, 6))
    assert half.feature_shape == (5, 6, 3)
    with pytest.raises(InputError, match="smaller than the crop"):
        open_source(tmp_path, crop=(20, 4))


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_in_files_are_memory_mapped(tmp_path, order):
    x = np.asarray(np.random.default_rng(0).normal(size=(40, 3)), order=order)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "stored.npz", x=x, y=np.eye(2))
    np.savez_compressed(tmp_path / "packed.npz", x=x)
    for name, mapped in (("x.npy", True), ("stored.npz", True), ("packed.npz", False)):
        source = open_source(tmp_path / name)
        assert isinstance(source._array, np.memmap) == mapped
        np.testing.assert_array_equal(source.take(range(40), torch.float64), x)


def test_tables_with_gaps(tmp_path):
    lines = "id,name,a,b\n1,x,0.5,NA\n2,y,,-2e3\n3,z,7,?\n"
    (tmp_path / "t.csv").write_text(lines)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("t.csv", "t.csv.gz"):
        source = open_source(tmp_path / name, columns=["b", "a"])
        expected = [[np.nan, 0.5], [-2000, np.nan], [np.nan, 7]]
        np.testing.assert_array_equal(source.take(range(3)), expected)
        np.testing.assert_array_equal(open_source(**source.options).take(range(3)), expected)
    with pytest.raises(InputError, match="column name: 'x' is not a number"):
        open_source(tmp_path / "t.csv")
    with pytest.raises(InputError, match="no column c"):
        open_source(tmp_path / "t.csv", columns=["c"])
    (tmp_path / "short.csv").write_text("a,b\n1\n")
    with pytest.raises(InputError, match="line 2: 1 cells"):
        open_source(tmp_path / "short.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="is empty"):
        open_source(tmp_path / "empty.csv")


def test_digits_come_in_two_disjoint_splits():
    train, test = open_source("digits"), open_source("digits:test")
    assert len(train) + len(test) == 1797
    assert train.scale.levels == 17
    assert counterpart("digits") == "digits:test"
    assert counterpart("digits:test") is None


def test_labels_belong_to_their_images(tmp_path):
    digits = load_digits()
    for split in ("train", "test"):
        source, labels = (
            open_source(f"digits:{split}", dequantise=False),
            open_labels(f"digits:{split}", limit=50),
        )
        x = source.take(range(50)) * 17
        for row, label in zip(x.floor().numpy(), labels, strict=True):
            same = (digits.data == row).all(1)
            assert label in digits.target[same]
    np.save(tmp_path / "x.npy", np.array([0.5, 1.0]))
    with pytest.raises(InputError, match="one integer per row"):
        open_labels(tmp_path / "x.npy")
    with pytest.raises(InputError, match="no labels called 'celeba'"):
        open_labels("celeba")


def test_mnist_has_its_known_shape(mogul_data):
    source = open_source("mnist")
    assert (len(source), source.feature_shape) == (60_000, (28, 28))
    assert abs(float(open_source("mnist", dequantise=False).take(range(1000)).mean()) - 0.13) < 0.02


def test_faces_are_cropped_as_in_the_paper(mogul_data):
    source = open_source("celeba:test", limit=5)
    assert (len(source), source.feature_shape) == (5, (64, 64, 3))


@settings(max_examples=25, deadline=None)
@given(levels=st.integers(2, 256), seed=st.integers(0, 5), size=st.integers(1, 9))
def test_dequantisation_keeps_the_pixel_and_ignores_the_batch_size(levels, seed, size):
    pixels = np.random.default_rng(seed).integers(0, levels, (9, 2, 2), dtype=np.uint8)
    source = ArraySource(pixels, scale=PixelScale(levels, dequantise=True, seed=seed))
    whole = source.take(range(9), torch.float64)
    parts = torch.cat([b.x for b in source.batches(size, torch.float64)])
    torch.testing.assert_close(whole, parts, rtol=0, atol=0)
    np.testing.assert_array_equal((whole.numpy() * levels).astype(int).ravel(), pixels.ravel())


def test_bits_per_dim_of_a_uniform_density_is_the_number_of_bits():
    assert PixelScale(256).bits_per_dim(0.0, 10) == pytest.approx(8.0)
    # A density that puts all mass on one of 256 levels has log-density log 256 per pixel.
    assert PixelScale(256).bits_per_dim(10 * np.log(256), 10) == pytest.approx(0.0)


def test_weights_travel_with_rows():
    source = ArraySource(np.eye(4), weight=np.arange(4.0))
    assert [float(b.weight.sum()) for b in source.batches(2)] == [1.0, 5.0]
    assert [len(source.shard(Group(r, 3))) for r in range(3)] == [1, 1, 2]


def _bad_files(path):
    gz = gzip.compress(_idx(PIXELS))
    np.save(path / "flat.npy", np.zeros(5))
    np.save(path / "text.npy", np.array([["a", "b"]]))
    np.save(path / "object.npy", np.array([[None]], dtype=object))
    np.save(path / "complex.npy", np.zeros((2, 2), complex))
    np.save(path / "none.npy", np.zeros((0, 3)))
    np.save(path / "inf.npy", np.array([[1.0, np.inf]]))
    np.savez(path / "two.npz", a=np.eye(2), b=np.eye(2))
    (path / "empty.npy").touch()
    (path / "empty-idx3-ubyte").touch()
    (path / "empty.zip").touch()
    (path / "cut-idx3-ubyte.gz").write_bytes(gz[: len(gz) // 2])
    (path / "short-idx3-ubyte").write_bytes(_idx(PIXELS)[:-1])
    (path / "magic-idx3-ubyte").write_bytes(_idx(PIXELS, b"\x89PNG"))
    (path / "words.txt").write_text("hello")
    (path / "bare").mkdir()
    (path / "broken").mkdir()
    (path / "broken" / "a.png").write_bytes(_png(PIXELS[0])[:40])
    (path / "mixed").mkdir()
    for i in (2, 3):
        (path / "mixed" / f"{i}.png").write_bytes(_png(PIXELS[0][:i]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat.npy", r"shape \(5,\)"),
        ("text.npy", "real numbers"),
        ("object.npy", "cannot be read as a .npy array of numbers"),
        ("complex.npy", "real numbers"),
        ("none.npy", "is empty"),
        ("inf.npy", "column 1 is infinite"),
        ("two.npz", "holds 2 arrays"),
        ("empty.npy", "is empty"),
        ("empty-idx3-ubyte", "nothing, which is not the magic number"),
        ("empty.zip", "cannot be read as a zip file"),
        ("cut-idx3-ubyte.gz", "cannot be read as a whole gzip file"),
        ("short-idx3-ubyte", "140 bytes, but holds 139"),
        ("magic-idx3-ubyte", "not the magic number"),
        ("words.txt", "unknown kind"),
        ("bare", "holds no images"),
        ("broken", "cannot be decoded"),
        ("mixed", "must be of one size"),
        ("absent.npy", "no data set or file"),
    ],
)
def test_bad_data_are_refused_in_one_sentence(tmp_path, name, message):
    _bad_files(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        for _ in open_source(tmp_path / name).batches():
            pass
    assert "\n" not in str(caught.value)


def test_unknown_split_and_missing_folder(monkeypatch):
    with pytest.raises(InputError, match="choose train or test"):
        open_source("digits:dev")
    monkeypatch.delenv("MOGUL_DATA", raising=False)
    with pytest.raises(InputError, match="MOGUL_DATA"):
        open_source("mnist")
    with pytest.raises(InputError, match="at least 1"):
        open_source("digits", limit=0)


def test_binarised_pixels_are_drawn_once_with_their_share_as_probability():
    pixels = np.zeros((3000, 2, 2), dtype=np.uint8)
    pixels[:, 0, 1], pixels[:, 1, 0], pixels[:, 1, 1] = 255, 51, 204
    first, again = (open_source(pixels, binarise="static", seed=3) for _ in range(2))
    x = first.take(range(3000))
    assert torch.equal(x, again.take(range(3000)))
    assert torch.equal(x[:50], open_source(pixels[:50], binarise="static", seed=3).take(range(50)))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(x.mean(0), torch.tensor([0.0, 1.0, 0.2, 0.8]), atol=0.03)
    dynamic = open_source(pixels, binarise="dynamic").take(range(2))
    assert torch.allclose(dynamic, torch.tensor([0.0, 1.0, 0.2, 0.8]))
    with pytest.raises(InputError, match="static or dynamic"):
        open_source(pixels, binarise="often")
    with pytest.raises(InputError, match="8-bit images"):
        open_source(np.zeros((3, 2)), binarise="static")


@pytest.mark.parametrize("seed", [0, 3, 5000])
def test_noise_is_that_of_torch_in_blocks_of_rows(seed):
    first, second = (
        torch.rand(1024, 7, generator=torch.Generator().manual_seed(seed * 1_000_003 + block))
        for block in (0, 1)
    )
    expected = torch.cat([first, second])
    scale = PixelScale(256, dequantise=True, seed=seed)
    for index in (torch.arange(2048), torch.arange(700, 1500), torch.tensor([5, 3, 1024, 5, 2047])):
        found = scale.forward(torch.zeros(len(index), 7, dtype=torch.uint8), index, torch.float32)
        assert torch.equal(found * 256, expected[index])
