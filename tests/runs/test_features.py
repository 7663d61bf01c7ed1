"""The feature pass and its cache, with an encoder that counts what it encodes."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from deft_plugin.data.digests import image_digest
from deft_plugin.data.sources import FileImages, IndexedImages
from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.runs import feature_files
from deft_plugin.runs import features as module
from deft_plugin.runs.features import (
    ImageFeatures,
    centre_features,
    class_centre,
    compute_image_features,
    default_cache_dir,
)

DIM = 5


class Killed(BaseException):
    """As if the process ended here."""


class CountingBackbone:
    """Encodes the mean colour; `kill_at` is the number of the batch at which the process dies."""

    feature_dim = DIM

    def __init__(self, *, fingerprint="weights", kill_at=None):
        self.fingerprint = fingerprint
        self.rows = []
        self.batches = 0
        self.autocast = []
        self._kill_at = kill_at
        self._out = torch.randn(3, DIM, generator=torch.Generator().manual_seed(0))

    def preprocess(self, image):
        return torch.from_numpy(np.array(image.resize((4, 4)))).permute(2, 0, 1).float() / 255

    def encode_images(self, pixels):
        self.batches += 1
        if self.batches == self._kill_at:
            raise Killed
        self.rows.append(len(pixels))
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        assert pixels.shape[1:] == (3, 4, 4)
        with torch.autocast("cpu", enabled=False):
            return F.normalize((pixels.mean((2, 3)) - 0.5) @ self._out, dim=-1)

    @property
    def num_encoded(self):
        return sum(self.rows)


def colour(row):
    return (row * 37 % 256, row * 91 % 256, row * 13 % 256)


def photo(row):
    return Image.new("RGB", (6, 5), colour(row))


def photos(size=23):
    return IndexedImages([photo(row) for row in range(size)])


def expected_features(size=23, backbone=None):
    backbone = backbone or CountingBackbone()
    return np.concatenate(
        [backbone.encode_images(backbone.preprocess(photo(row))[None]).numpy() for row in range(size)]
    )


@pytest.fixture
def compute(tmp_path):
    def call(backbone, images=None, **arguments):
        arguments = {"batch_size": 3, "cache_dir": tmp_path / "cache", **arguments}
        return compute_image_features(backbone, photos() if images is None else images, **arguments)

    return call


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_PART", 5)


def stored_files(tmp_path):
    return sorted(file.name for file in tmp_path.rglob("*") if file.is_file())


def assert_same(first, second):
    for name in ("features", "digests", "is_readable"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


class TestPass:
    @pytest.mark.parametrize("batch_size", [1, 3, 100])
    def test_rows_in_order(self, compute, small_parts, batch_size):
        result = compute(CountingBackbone(), batch_size=batch_size)
        assert isinstance(result, ImageFeatures)
        assert result.features.dtype == np.float16
        np.testing.assert_allclose(result.features, expected_features(), atol=1e-3)
        assert result.is_readable.all()
        assert [bytes(digest) for digest in result.digests] == [image_digest(photo(row)) for row in range(23)]
        assert result.seconds > 0

    def test_memory_mapped_and_safe_from_writers(self, compute):
        """Whoever writes into the features gets a copy of the page: the cache keeps what the encoder gave."""
        result = compute(CountingBackbone())
        assert isinstance(result.features, np.memmap)
        result.features[0] = 0
        again = compute(CountingBackbone())
        np.testing.assert_allclose(again.features, expected_features(), atol=1e-3)

    def test_batches(self, compute, small_parts):
        backbone = CountingBackbone()
        compute(backbone, batch_size=3)
        assert backbone.rows == [3, 2, 3, 2, 3, 2, 3, 2, 3]

    def test_progress(self, compute, small_parts):
        told = []
        compute(CountingBackbone(), progress=lambda done, total: told.append((done, total)))
        done = [rows for rows, _ in told]
        assert done == sorted(done)
        assert set(done) == {3, 5, 8, 10, 13, 15, 18, 20, 23}
        assert {total for _, total in told} == {23}

    def test_runs_in_the_format_of_the_device(self, compute):
        backbone = CountingBackbone()
        compute(backbone)
        assert set(backbone.autocast) == {module.compute_dtype("cpu") != torch.float32}

    def test_threads_give_the_same(self, compute, monkeypatch, tmp_path):
        alone = compute(CountingBackbone())
        monkeypatch.setattr(module, "num_decoders", lambda _device: 7)
        assert_same(compute(CountingBackbone(), cache_dir=tmp_path / "other"), alone)

    def test_what_cannot_be_pickled(self, compute):
        """As a data set with a lambda: processes would need to send it."""
        images, backbone = photos(), CountingBackbone()
        images.load = lambda row: photo(row)
        backbone.preprocess = lambda image: CountingBackbone.preprocess(backbone, image)
        np.testing.assert_allclose(compute(backbone, images).features, expected_features(), atol=1e-3)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
    def test_features_that_are_not_finite(self, compute, tmp_path, value):
        backbone = CountingBackbone()
        encode = backbone.encode_images
        backbone.encode_images = lambda pixels: encode(pixels).index_fill(0, torch.tensor([1]), value)
        with pytest.raises(InputError, match=r"Expected finite features from the model, but those of row 1 are not"):
            compute(backbone)
        assert stored_files(tmp_path) == []


class TestUnreadable:
    @pytest.fixture
    def files(self, tmp_path):
        files = [tmp_path / f"{row}.png" for row in range(7)]
        for row, file in enumerate(files):
            photo(row).save(file)
        files[0].write_bytes(b"")
        files[3].write_bytes(files[3].read_bytes()[:40])
        files[4].write_bytes(b"no image")
        files[5].unlink()
        return FileImages(files)

    @pytest.mark.parametrize("batch_size", [1, 2, 10])
    def test_is_flagged_and_keeps_its_row(self, compute, files, batch_size):
        backbone = CountingBackbone()
        result = compute(backbone, files, batch_size=batch_size)
        readable = np.array([False, True, True, False, False, False, True])
        assert result.is_readable.tolist() == readable.tolist()
        assert (result.digests[~readable] == 0).all()
        assert (result.features[~readable] == 0).all()
        np.testing.assert_allclose(result.features[readable], expected_features(7)[readable], atol=1e-3)
        assert [bytes(digest) for digest in result.digests[readable]] == [image_digest(photo(row)) for row in (1, 2, 6)]
        assert backbone.num_encoded == 3

    def test_none_readable(self, compute, tmp_path):
        missing = FileImages([tmp_path / "a.png", tmp_path / "b.png"])
        result = compute(CountingBackbone(), missing)
        assert result.features.shape == (2, DIM)
        assert not result.is_readable.any()

    def test_a_bug_in_preprocessing_is_no_unreadable_image(self, compute):
        backbone = CountingBackbone()
        backbone.preprocess = lambda image: 1 / 0
        with pytest.raises(ZeroDivisionError):
            compute(backbone)

    def test_a_bug_in_the_data_set_is_no_unreadable_image(self, compute, monkeypatch):
        images = photos()
        monkeypatch.setattr(images, "load", lambda row: {}[row])
        with pytest.raises(KeyError):
            compute(CountingBackbone(), images)


class TestCache:
    def test_hit_encodes_nothing(self, compute):
        first = compute(CountingBackbone())
        backbone = CountingBackbone()
        second = compute(backbone)
        assert backbone.batches == 0
        assert second.seconds == 0
        assert_same(first, second)

    def test_batch_size_is_no_part_of_the_key(self, compute):
        compute(CountingBackbone(), batch_size=2)
        backbone = CountingBackbone()
        compute(backbone, batch_size=7)
        assert backbone.batches == 0

    def test_changed_image(self, compute):
        compute(CountingBackbone())
        changed = [photo(row) for row in range(23)]
        changed[7] = photo(77)
        backbone = CountingBackbone()
        result = compute(backbone, IndexedImages(changed))
        assert backbone.num_encoded == 23
        assert bytes(result.digests[7]) == image_digest(photo(77))

    @pytest.mark.parametrize("change", ["order", "subset"])
    def test_other_rows(self, compute, change):
        compute(CountingBackbone())
        rows = range(22, -1, -1) if change == "order" else range(11)
        backbone = CountingBackbone()
        result = compute(backbone, IndexedImages([photo(row) for row in rows]))
        np.testing.assert_allclose(result.features, expected_features()[list(rows)], atol=1e-3)
        assert backbone.num_encoded == len(rows)

    def test_other_weights(self, compute):
        compute(CountingBackbone())
        backbone = CountingBackbone(fingerprint="other weights")
        compute(backbone)
        assert backbone.num_encoded == 23

    def test_other_number_format(self, compute, monkeypatch):
        compute(CountingBackbone())
        other = torch.float32 if module.compute_dtype("cpu") != torch.float32 else torch.bfloat16
        monkeypatch.setattr(module, "compute_dtype", lambda _device: other)
        backbone = CountingBackbone()
        compute(backbone)
        assert backbone.num_encoded == 23

    def test_only_arrays_and_checksums_stay(self, compute, small_parts, tmp_path):
        compute(CountingBackbone())
        assert stored_files(tmp_path) == ["checksums.json", "digests.npy", "features.npy", "is_readable.npy"]

    def test_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DEFT_CACHE_DIR", str(tmp_path / "here"))
        assert default_cache_dir() == tmp_path / "here"
        compute_image_features(CountingBackbone(), photos(3))
        assert len(stored_files(tmp_path / "here")) == 4
        monkeypatch.delenv("DEFT_CACHE_DIR")
        assert default_cache_dir().name == "deft_plugin"


class TestResume:
    @pytest.mark.parametrize(("kill_at", "encoded"), [(1, 23), (2, 23), (5, 13), (9, 3)])
    def test_goes_on_behind_the_last_whole_part(self, compute, small_parts, tmp_path, kill_at, encoded):
        """Batches of 3 and 2 rows a part: 5 is the first batch of the third part."""
        unbroken = compute(CountingBackbone(), cache_dir=tmp_path / "unbroken")
        with pytest.raises(Killed):
            compute(CountingBackbone(kill_at=kill_at))
        backbone = CountingBackbone()
        result = compute(backbone)
        assert backbone.num_encoded == encoded
        assert_same(result, unbroken)
        assert len(stored_files(tmp_path / "cache")) == 4

    def test_killed_while_a_part_is_written(self, compute, small_parts, monkeypatch, tmp_path):
        """Half a file is written under a name that does not count."""
        unbroken = compute(CountingBackbone(), cache_dir=tmp_path / "unbroken")
        save = np.savez

        def cut_off(stream, **arrays):
            if ".new/" in stream.name and "0000000010" in stream.name:
                stream.write(b"PK\x03\x04 half a file")
                raise Killed
            save(stream, **arrays)

        monkeypatch.setattr(np, "savez", cut_off)
        with pytest.raises(Killed):
            compute(CountingBackbone())
        assert "0000000005.npz" in stored_files(tmp_path / "cache")
        assert "0000000010.npz" not in stored_files(tmp_path / "cache")
        monkeypatch.setattr(np, "savez", save)
        backbone = CountingBackbone()
        assert_same(compute(backbone), unbroken)
        assert backbone.num_encoded == 13

    @pytest.mark.parametrize("array", ["features", "digests", "is_readable"])
    def test_killed_while_parts_are_joined(self, compute, small_parts, monkeypatch, tmp_path, array):
        """What is joined already does not make the entry complete; no image is encoded again."""
        unbroken = compute(CountingBackbone(), cache_dir=tmp_path / "unbroken")
        replace = module.Path.replace

        def cut_off(file, target):
            if file.name.startswith(f"{array}."):
                raise Killed
            return replace(file, target)

        monkeypatch.setattr(module.Path, "replace", cut_off)
        with pytest.raises(Killed):
            compute(CountingBackbone())
        monkeypatch.setattr(module.Path, "replace", replace)
        backbone = CountingBackbone()
        assert_same(compute(backbone), unbroken)
        assert backbone.num_encoded == 0


def save(value):
    def write(file):
        with file.open("wb") as stream:  # np.save would give it another name
            np.save(stream, value)

    return write


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-3]),
    "garbage": lambda file: file.write_bytes(b"nonsense" * 100),
    "one bit": lambda file: file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1])),
    "zeros": lambda file: file.write_bytes(bytes(len(file.read_bytes()))),
    "pickled": save(np.array([{}], object)),
    "other rows": save(np.zeros((22, DIM), np.float16)),
    "other length": save(np.zeros((23, DIM + 1), np.float16)),
    "other type": save(np.zeros((23, DIM), np.float32)),
    "NaN": save(np.full((23, DIM), np.nan, np.float16)),
    "a folder": lambda file: (file.unlink(), file.mkdir(), (file / "x").write_text("")),
}


class TestDamaged:
    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            *(("features.npy", damage) for damage in DAMAGES),
            *((f"{name}.npy", damage) for name in ("digests", "is_readable") for damage in ("cut", "one bit")),
            *(("checksums.json", damage) for damage in ("missing", "empty", "garbage", "NaN", "a folder")),
        ],
    )
    def test_entry_is_computed_anew(self, compute, tmp_path, name, damage):
        whole = compute(CountingBackbone(), cache_dir=tmp_path / "whole")
        compute(CountingBackbone())
        DAMAGES[damage](next((tmp_path / "cache").rglob(name)))
        backbone = CountingBackbone()
        with pytest.warns(UserWarning, match=r"in the feature cache is damaged \(.*\); it is computed anew"):
            assert_same(compute(backbone), whole)
        assert backbone.num_encoded == 23
        assert_same(compute(CountingBackbone(kill_at=1)), whole)

    @pytest.mark.parametrize("damage", sorted({*DAMAGES} - {"missing", "one bit"}))
    def test_part_is_computed_anew(self, compute, small_parts, tmp_path, damage):
        whole = compute(CountingBackbone(), cache_dir=tmp_path / "whole")
        with pytest.raises(Killed):
            compute(CountingBackbone(kill_at=5))
        DAMAGES[damage](next((tmp_path / "cache").rglob("0000000005.npz")))
        backbone = CountingBackbone()
        with pytest.warns(UserWarning, match=r"0000000005\.npz in the feature cache is damaged"):
            assert_same(compute(backbone), whole)
        assert backbone.num_encoded == 18

    def test_part_with_nan(self, compute, small_parts, tmp_path):
        with pytest.raises(Killed):
            compute(CountingBackbone(kill_at=5))
        file = next((tmp_path / "cache").rglob("0000000005.npz"))
        with np.load(file) as part:
            arrays = dict(part)
        arrays["features"][2, 1] = np.nan
        np.savez(file, **arrays)
        with pytest.warns(UserWarning, match="features are not finite"):
            assert np.isfinite(compute(CountingBackbone()).features).all()

    def test_file_in_place_of_a_folder(self, compute, tmp_path):
        whole = compute(CountingBackbone())
        folder = next((tmp_path / "cache").rglob("features.npy")).parent
        shutil.rmtree(folder)
        folder.write_text("")
        with pytest.warns(UserWarning, match="is damaged"):
            assert_same(compute(CountingBackbone()), whole)


class Limited(FileImages):
    """Images of which some cannot be read for a reason that passes, such as too little memory."""

    unreadable = frozenset({2, 5})

    def load(self, row):
        if row in self.unreadable:
            raise UnreadableImageError(f"row {row}")
        return super().load(row)


class TestTriedAgain:
    @pytest.fixture
    def files(self, tmp_path):
        for row in range(8):
            photo(row).save(tmp_path / f"{row}.png")
        (tmp_path / "7.png").write_bytes(b"no image")
        return [tmp_path / f"{row}.png" for row in range(8)]

    def test_rows_that_can_be_read_now_are_encoded(self, compute, files, tmp_path):
        readable = [row not in (7,) for row in range(8)]
        whole = compute(CountingBackbone(), FileImages(files), cache_dir=tmp_path / "whole")
        first = compute(CountingBackbone(), Limited(files))
        assert not first.is_readable[[2, 5, 7]].any()
        backbone = CountingBackbone()
        second = compute(backbone, FileImages(files))
        assert backbone.num_encoded == 2
        assert second.is_readable.tolist() == readable
        assert_same(second, whole)
        assert not first.is_readable[2], "who has read the old entry keeps it"
        third = compute(CountingBackbone(kill_at=1), FileImages(files))
        assert_same(third, whole)
        assert third.seconds == 0

    def test_nothing_is_written_if_none_can(self, compute, files, tmp_path):
        compute(CountingBackbone(), Limited(files))
        before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*")}
        compute(CountingBackbone(kill_at=1), Limited(files))
        assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*")} == before

    def test_limit_of_pillow(self, compute, files, monkeypatch, tmp_path):
        with monkeypatch.context() as patch:
            patch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
            with warnings.catch_warnings(action="ignore"):
                assert not compute(CountingBackbone(), FileImages(files)).is_readable.any()
        assert compute(CountingBackbone(), FileImages(files)).is_readable.sum() == 7

    def test_file_that_was_missing(self, compute, files, tmp_path):
        files[3].rename(tmp_path / "away")
        assert not compute(CountingBackbone(), FileImages(files)).is_readable[3]
        (tmp_path / "away").rename(files[3])
        assert compute(CountingBackbone(), FileImages(files)).is_readable[3]

    def test_file_that_changes_while_the_run_goes(self, compute, files, tmp_path):
        class Changing(FileImages):
            def load(self, row):
                if row == 4:
                    photo(99).save(files[4])
                return super().load(row)

        found = compute(CountingBackbone(), Changing(files))
        assert found.is_readable.tolist() == [row not in (4, 7) for row in range(8)]
        photo(4).save(files[4])
        again = compute(CountingBackbone(), FileImages(files))
        assert bytes(again.digests[4]) == image_digest(photo(4))


class TestCannotWrite:
    def test_a_file_where_the_folder_should_be(self, compute, tmp_path):
        (tmp_path / "cache").write_text("in the way")
        with pytest.raises(InputError, match=r"write image features to .*cache.*, but: .*cache_dir=.*DEFT_CACHE_DIR"):
            compute(CountingBackbone())

    def test_no_permission(self, compute, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(module.Path, "mkdir", refuse)
        with pytest.raises(InputError, match="Permission denied"):
            compute(CountingBackbone())

    def test_disk_full_then_some_space(self, compute, small_parts, monkeypatch, tmp_path):
        """What is there already is used."""
        unbroken = compute(CountingBackbone(), cache_dir=tmp_path / "unbroken")
        save, saved = np.savez, []

        def fill_up(stream, **arrays):
            if len(saved) == 3:
                raise OSError(28, "No space left on device")
            saved.append(stream)
            save(stream, **arrays)

        monkeypatch.setattr(np, "savez", fill_up)
        with pytest.raises(InputError, match="No space left on device"):
            compute(CountingBackbone())
        monkeypatch.setattr(np, "savez", save)
        backbone = CountingBackbone()
        assert_same(compute(backbone), unbroken)
        assert backbone.num_encoded == 8

    def test_disk_full_while_parts_are_joined(self, compute, small_parts, monkeypatch, tmp_path):
        """An error instead of the signal that a memory map ends with; parts are kept."""
        unbroken = compute(CountingBackbone(), cache_dir=tmp_path / "unbroken")
        checksum = feature_files._checksum

        def fill_up(blocks, stream=None):
            if stream:
                stream.write(b"half")
                raise OSError(28, "No space left on device")
            return checksum(blocks, stream)

        with monkeypatch.context() as patch:
            patch.setattr(feature_files, "_checksum", fill_up)
            with pytest.raises(InputError, match="No space left on device"):
                compute(CountingBackbone())
        assert not [file for file in stored_files(tmp_path / "cache") if not file.endswith(".npz")]
        backbone = CountingBackbone()
        assert_same(compute(backbone), unbroken)
        assert backbone.num_encoded == 0


class TestCentre:
    @pytest.mark.parametrize("rows_per_part", [4, 4096])
    def test_against_numpy(self, monkeypatch, rows_per_part):
        monkeypatch.setattr(module, "ROWS_PER_PART", rows_per_part)
        features = np.random.default_rng(0).normal(0.5, 0.3, (19, 8)).astype(np.float16)
        labels = np.arange(19) % 5 * 2  # classes of 4 and 3; the odd ones have none
        centre = class_centre(features, labels)
        exact = features.astype(np.float64)
        expected = np.mean([exact[labels == label].mean(0) for label in np.unique(labels)], axis=0)
        np.testing.assert_allclose(centre, expected, rtol=1e-6)
        centred = centre_features(features, centre)
        assert centred.dtype == np.float16
        expected = exact - expected
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(centred, expected, atol=1e-3)

    def test_a_large_class_does_not_draw_the_centre_to_itself(self):
        features = np.array([[1, 0]] * 100 + [[0, 1]], np.float16)
        assert class_centre(features, np.array([0] * 100 + [1])).tolist() == [0.5, 0.5]

    def test_sum_of_many_rows_does_not_overflow(self):
        """float16 ends at 65504 and is exact to 2048 only."""
        features = np.full((70_000, 2), 1, np.float16)
        features[::2, 1] = 0.5
        centred = centre_features(features, class_centre(features, np.arange(70_000) // 35_000))
        assert (centred[:, 0] == 0).all()
        assert centred[:2, 1].tolist() == [-1, 1]

    def test_one_image_stays_finite(self):
        assert (centre_features(np.ones((1, 4), np.float16), np.ones(4, np.float32)) == 0).all()
