"""Data that stream give what the same rows give in memory."""

import gzip
import io
import itertools
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from mogul import EM, GaussianMixture, InputError, fit, initialise, open_source
from mogul.compute.prefetch import made_ahead
from mogul.data import ArraySource, IndexedSource, IteratedSource, csv_files, datasets, text_columns

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (60, 6, 5), dtype=np.uint8)
ROWS = RANDOM.normal(size=(300, 4)) + 3 * RANDOM.integers(0, 2, (300, 1))


def encoded(pixels, kind="png"):
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, pixels)
    else:
        Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def write_tar(path, contents):
    with tarfile.open(path, "w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder, rows, kind, counts=(17, 1, 42)):
    folder.mkdir(exist_ok=True)
    start = 0
    for number, count in enumerate(counts):
        contents = {}
        for i in range(start, start + count):
            contents[f"{i:04d}.{kind}"] = encoded(rows[i], kind)
            contents[f"{i:04d}.cls"] = b"7"
        write_tar(folder / f"shards-{number:03d}.tar", contents)
        start += count
    return folder


def assert_same_batches(source, twin, size=16):
    assert len(source) == len(twin)
    assert source.feature_shape == twin.feature_shape
    for ours, other in itertools.zip_longest(
        source.batches(size, torch.float64), twin.batches(size, torch.float64)
    ):
        torch.testing.assert_close(ours.x, other.x, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(ours.index, other.index)
    index = [len(twin) - 1, 0, 3, 3, 7]
    torch.testing.assert_close(source.take(index), twin.take(index), rtol=0, atol=0)
    torch.testing.assert_close(source.head(5), twin.take(range(5)), rtol=0, atol=0)


def history(source, start, passes=5):
    model = GaussianMixture(2, start.n_features, "diagonal", dtype=torch.float64)
    initialise(model, start)
    done = fit(model, source, EM(), passes=passes, tolerance=0.0)
    return [row["log_likelihood"] for row in done.history]


@pytest.fixture
def streaming(monkeypatch):
    """Hold no images in memory, few as they are here."""
    monkeypatch.setattr(datasets, "_IN_MEMORY", 0)


@pytest.mark.parametrize("how", ["folder", "zip", "tars", "braces", "tar"])
def test_encoded_images_stream(tmp_path, streaming, how):
    path = tmp_path / "x"
    if how == "folder":
        path.mkdir()
        for i, image in enumerate(PIXELS):
            (path / f"img{i}.png").write_bytes(encoded(image))
    elif how == "zip":
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for i, image in enumerate(PIXELS):
                archive.writestr(f"img{i}.png", encoded(image))
    elif how == "tar":
        path = write_shards(path, PIXELS, "png", (60,)) / "shards-000.tar"
    else:
        write_shards(path, PIXELS, "png")
        path = path if how == "tars" else path / "shards-{000..002}.tar"
    source, twin = open_source(path, seed=2), open_source(PIXELS, seed=2)
    assert isinstance(source, IndexedSource)
    assert_same_batches(source, twin)
    assert history(source, twin) == pytest.approx(history(twin, twin), abs=1e-10)
    assert_same_batches(open_source(**source.options), twin)
    assert_same_batches(open_source(path, limit=20, seed=2), open_source(PIXELS[:20], seed=2))


def test_few_images_are_decoded_once(tmp_path):
    folder = write_shards(tmp_path / "x", PIXELS, "png")
    assert isinstance(open_source(folder), ArraySource)
    assert_same_batches(open_source(folder), open_source(PIXELS))


def test_options_for_images_apply_to_those_that_stream(tmp_path, streaming):
    faces = RANDOM.integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    folder = write_shards(tmp_path / "x", faces, "png", (2, 1))
    source = open_source(folder, crop=(6, 4), dequantise=False)
    assert source.feature_shape == (6, 4, 3)
    np.testing.assert_array_equal(source.to_pixels(source.take(range(3))), faces[:, 1:7, 2:6])
    assert open_source(folder, size=(3, 2), colour=False).feature_shape == (3, 2)
    dynamic = open_source(folder, binarise="dynamic").take([0])
    torch.testing.assert_close(dynamic, torch.tensor(faces[:1] / 255).float().flatten(1))
    with pytest.raises(InputError, match="choose dynamic"):
        open_source(folder, binarise="static")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_in_tars_are_rows(tmp_path, streaming, dtype):
    rows = ROWS[:60].astype(dtype)
    source = open_source(write_shards(tmp_path / "x", rows, "npy"))
    assert_same_batches(source, ArraySource(rows))
    with pytest.raises(InputError, match="apply to images"):
        open_source(tmp_path / "x", size=(2, 2))


def _bad_tars(path):
    good = {"a.png": encoded(PIXELS[0]), "b.png": encoded(PIXELS[1])}
    (path / "packed.tar.gz").write_bytes(gzip.compress(b"x"))
    (path / "packed.tar").write_bytes(gzip.compress(b"x"))
    (path / "text.tar").write_bytes(b"hello" * 300)
    write_tar(path / "none.tar", {"a.txt": b"x"})
    write_tar(path / "two.tar", {"a.png": good["a.png"], "a.jpg": good["b.png"]})
    write_tar(path / "broken.tar", good | {"c.png": b"no image"})
    write_tar(path / "sizes.tar", good | {"c.png": encoded(PIXELS[2][:3])})
    whole = write_tar(path / "cut.tar", good | {"c.npy": bytes(5000)}).read_bytes()
    (path / "cut.tar").write_bytes(whole[:2500])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("packed.tar.gz", "packed by gzip"),
        ("packed.tar", "packed by gzip"),
        ("text.tar", "cannot be read as a tar file"),
        ("none.tar", "holds no images"),
        ("two.tar", "second image or array of its sample"),
        ("broken.tar", r"broken.tar/c.png cannot be decoded"),
        ("sizes.tar", "must be of one size"),
        ("cut.tar", "cut short"),
        ("shards-{0..2}.tar", "cannot be read as a tar file"),
    ],
)
@pytest.mark.parametrize("limit", [0, 2**30])
def test_bad_tars_are_told(tmp_path, monkeypatch, name, message, limit):
    monkeypatch.setattr(datasets, "_IN_MEMORY", limit)
    _bad_tars(tmp_path)
    with pytest.raises(InputError, match=message):
        list(open_source(tmp_path / name).batches())


class Map:
    """A map-style data set of images and labels."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, i):
        return Image.fromarray(PIXELS[i]), 7


TENSORS = TensorDataset(torch.tensor(ROWS), torch.zeros(300))


@pytest.mark.parametrize(
    ("make", "rows"),
    [
        (lambda: DataLoader(TENSORS, 7), ROWS),
        (lambda: DataLoader(TENSORS, 7, shuffle=True), ROWS),  # rows have numbers: undone
        (lambda: DataLoader(TENSORS, batch_size=None), ROWS),
        (lambda: TENSORS, ROWS),
        (lambda: Map(), PIXELS),
        (lambda: [row.tolist() for row in ROWS], ROWS),
        (lambda: DataLoader(Map(), 8, collate_fn=lambda items: items), PIXELS),
        (lambda: DataLoader(torch.tensor(PIXELS), 9), PIXELS),
    ],
)
def test_loaders_and_data_sets_are_sources(make, rows):
    source, twin = open_source(make()), open_source(rows)
    assert source.repeatable
    assert_same_batches(source, twin)
    assert history(source, twin) == pytest.approx(history(twin, twin), abs=1e-10)
    assert len(open_source(make(), limit=11)) == 11


class Again:
    """Something that can be gone through again, and does not tell its length."""

    def __iter__(self):
        return iter(np.split(ROWS, [5, 5, 100, 101]))


def test_iterables_are_counted_by_a_pass():
    source = open_source(Again())
    assert isinstance(source, IteratedSource)
    assert_same_batches(source, ArraySource(ROWS))
    assert len(open_source(Again(), rows=300)) == 300
    with pytest.raises(InputError, match="said to have 299"):
        list(open_source(Again(), rows=299).batches())


@given(cuts=st.lists(st.integers(0, 300), max_size=6), size=st.integers(1, 320))
@settings(max_examples=30, deadline=None)
def test_batches_do_not_depend_on_how_arrays_are_cut(cuts, size):
    source = open_source(iter(np.split(ROWS, sorted(cuts))[::1]), rows=300)
    found = list(source.batches(size, torch.float64))
    assert [len(b.x) for b in found[:-1]] == [size] * (len(found) - 1)
    np.testing.assert_array_equal(torch.cat([b.x for b in found]), ROWS)


def test_iterators_are_read_once_and_their_head_is_kept():
    source = open_source(row for row in ROWS)
    assert not source.repeatable
    with pytest.raises(InputError, match="rows=N"):
        len(source)
    with pytest.raises(InputError, match=r"head\(n\)"):
        source.take([0])
    np.testing.assert_array_equal(source.head(20, torch.float64), ROWS[:20])
    model = GaussianMixture(2, 4, dtype=torch.float64)
    initialise(model, source, sample_size=50)
    twin = GaussianMixture(2, 4, dtype=torch.float64)
    initialise(twin, ArraySource(ROWS[:50]))
    order, other = (m.centres.detach()[:, 0].argsort() for m in (model, twin))
    torch.testing.assert_close(model.centres[order], twin.centres[other], rtol=1e-6, atol=1e-6)
    x = torch.cat([b.x for b in source.batches(32, torch.float64)])
    np.testing.assert_array_equal(x, ROWS)
    for use in (lambda: list(source.batches()), lambda: source.head(3)):
        with pytest.raises(InputError, match=r"once only, and was.*write_store"):
            use()


def test_items_that_are_dicts_go_by_columns():
    items = [{"a": row[0], "b": row[1], "image": PIXELS[i % 60]} for i, row in enumerate(ROWS)]
    assert_same_batches(open_source(items, columns=["b", "a"]), ArraySource(ROWS[:, [1, 0]]))
    assert_same_batches(open_source(items[:60], columns=["image"]), open_source(PIXELS))
    loader = DataLoader(items, 8)
    assert_same_batches(open_source(loader, columns=["b", "a"]), ArraySource(ROWS[:, [1, 0]]))
    with pytest.raises(InputError, match="no column z; their columns are a, b, image"):
        open_source(loader, columns=["z"])
    with pytest.raises(InputError, match="choose it alone"):
        open_source(loader, columns=["a", "image"])
    with pytest.raises(InputError, match="leave it out"):
        open_source(TENSORS, columns=["a"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 7, "A int came"),
        (lambda: iter([]), "no rows"),
        (lambda: iter([np.zeros((2, 3)), np.zeros((2, 4))]), "all must be of one shape"),
        (lambda: [[1.0, 2.0], [3.0]], "a shape unlike"),
        (lambda: iter(["a"]), "real numbers"),
        (
            lambda: DataLoader(TENSORS, 4, sampler=WeightedRandomSampler([1.0] * 300, 9)),
            "differ from pass to pass",
        ),
    ],
)
def test_objects_that_are_no_rows_are_told(make, message):
    with pytest.raises(InputError, match=message):
        list(open_source(make()).batches())


def test_hugging_face_data_sets(tmp_path):
    hugging_face = pytest.importorskip("datasets")
    columns = {name: ROWS[:, j].astype("f4") for j, name in enumerate("abcd")}
    rows = ROWS.astype("f4")
    table = hugging_face.Dataset.from_dict(columns)
    assert isinstance(open_source(table), IndexedSource)
    assert_same_batches(open_source(table), ArraySource(rows))
    assert_same_batches(open_source(table, columns=["c", "a"]), ArraySource(rows[:, [2, 0]]))
    assert_same_batches(open_source(table.select(range(9, 40))), ArraySource(rows[9:40]))
    stream = open_source(table.to_iterable_dataset(num_shards=3))
    assert stream.repeatable
    assert_same_batches(stream, ArraySource(rows))
    assert history(stream, ArraySource(rows)) == pytest.approx(
        history(ArraySource(rows), ArraySource(rows)), abs=1e-10
    )
    pictures = hugging_face.Dataset.from_dict(
        {"image": [{"bytes": encoded(p), "path": None} for p in PIXELS], "label": [7] * 60},
        features=hugging_face.Features({
            "image": hugging_face.Image(),
            "label": hugging_face.Value("int64"),
        }),
    )
    for source in (open_source(pictures), open_source(pictures.to_iterable_dataset())):
        assert_same_batches(source, open_source(PIXELS))
    arrays = hugging_face.Dataset.from_dict(
        {"x": PIXELS}, hugging_face.Features({"x": hugging_face.Array2D((6, 5), "uint8")})
    )
    assert_same_batches(open_source(arrays), open_source(PIXELS))
    lists = hugging_face.Dataset.from_dict({"x": ROWS.tolist()})
    assert_same_batches(open_source(lists), ArraySource(ROWS))
    with pytest.raises(InputError, match="no column z"):
        open_source(table, columns=["z"])
    with pytest.raises(InputError, match="not numbers"):
        open_source(hugging_face.Dataset.from_dict({"t": ["a", "b"]}))


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-99, 99).map(str),
    st.sampled_from(["", "NA", " NaN ", "null", "?", " 1.5", '"2.5"', '"NA"', "1e3", "+7", "1_0"]),
)


@pytest.mark.parametrize("with_arrow", [True, False])
@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=40),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.integers(0, 3),  # of which all but the first end blank lines
    block=st.integers(20, 200),
)
def test_csv_blocks_hold_what_each_cell_says(
    tmp_path_factory, with_arrow, cells, ending, last, block
):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    lines = ["a,b,c", *map(",".join, cells)]
    path.write_bytes((ending.join(lines) + ending * last).encode())
    expected = [
        [np.nan if (t := c.strip().strip('"')) in text_columns.MISSING else float(t) for c in row]
        for row in cells
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "_BLOCK", block)
        patch.setattr(csv_files, "_RECORDS", 3)
        if not with_arrow:
            patch.setattr(csv_files, "_by_arrow", lambda table, block: None)
        np.testing.assert_array_equal(csv_files.read_csv(path), expected)
        np.testing.assert_array_equal(
            csv_files.read_csv(path, ["c", "a"]), np.array(expected)[:, [2, 0]]
        )
        assert csv_files.count_lines(path) == len(cells)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2", "line 902: 2 cells came under a header of 3"),
        ("1,2,3,4", "line 902: 4 cells"),
        ("1,x,3", "line 902, column b: 'x' is not a number"),
        ("", "line 902: 0 cells"),
        ('1,"x",3', "line 902, column b: 'x' is not a number"),
    ],
)
def test_csv_faults_are_told_by_line_whatever_the_block(
    tmp_path, monkeypatch, line, message, zipped
):
    monkeypatch.setattr(csv_files, "_BLOCK", 1000)
    monkeypatch.setattr(csv_files, "_RECORDS", 7)
    lines = ["a,b,c", *["1,2,3"] * 900, line, *["4,5,6"] * 900]
    path = tmp_path / ("t.csv.gz" if zipped else "t.csv")
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if zipped else text)
    with pytest.raises(InputError, match=message):
        open_source(path)
    if zipped:
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match=r"whole gzip|line 902"):
            open_source(path)


def test_memory_does_not_grow_with_a_csv_file(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "_BLOCK", 2**14)
    peaks = []
    for n in (5_000, 50_000):
        path = tmp_path / f"{n}.csv"
        path.write_text("a,b\n" + "1.25,-7.5\n" * n)
        tracemalloc.start()
        assert sum(len(block) for block in csv_files.csv_blocks(path)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 2**18


@given(n=st.integers(0, 30), stop=st.integers(0, 30))
@settings(max_examples=20, deadline=None)
def test_what_is_made_ahead_comes_in_order(n, stop):
    threads = torch.get_num_threads()
    made = made_ahead(lambda i=i: i * i for i in range(n))
    found = [value for _, value in zip(range(stop), made, strict=False)]
    made.close()
    assert found == [i * i for i in range(min(n, stop))]
    assert torch.get_num_threads() == threads


def test_a_list_of_arrays_is_so_many_rows():
    parts = [np.full((n, 3), float(n)) for n in (4, 2, 5)]
    for data in (parts, tuple(parts), [torch.from_numpy(p) for p in parts]):
        source = open_source(data)
        assert len(source) == 11
        np.testing.assert_array_equal(source.take(range(11)), np.concatenate(parts))


def test_data_frames_are_tables():
    frame = pytest.importorskip("pandas").DataFrame({
        "a": [1, 2],
        "b": [0.5, None],
        "c": ["x", "y"],
    })
    rows = open_source(frame, columns=["b", "a"]).take([0, 1]).tolist()
    assert rows[0] == [0.5, 1.0]
    assert np.isnan(rows[1][0])
    with pytest.raises(InputError, match="choose numeric columns"):
        open_source(frame)
    with pytest.raises(InputError, match="no column z; it has a, b, c"):
        open_source(frame, columns=["z"])


def test_loaders_of_iterable_data_sets_are_read():
    class Numbers(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(torch.arange(12.0).view(6, 2))

    source = open_source(torch.utils.data.DataLoader(Numbers(), batch_size=4))
    np.testing.assert_array_equal(source.take(range(6)), np.arange(12.0).reshape(6, 2))


def test_rows_that_change_their_width_are_told():
    source = open_source(np.zeros((5, width)) for width in (3, 4))
    with pytest.raises(InputError, match="rows of 4 features came after rows of 3"):
        source.head(9)


def test_what_gives_no_rows_is_refused_in_a_sentence():
    class Odd:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            raise KeyError(i)

    with pytest.raises(InputError, match="gives no row by the number 0"):
        open_source(Odd())
