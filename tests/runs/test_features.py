"""The feature pass and its cache, with an encoder that counts what it encodes."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from deft_plugin.compute import workers
from deft_plugin.data.digests import image_digest
from deft_plugin.data.sources import FileImages, IndexedImages
from deft_plugin.errors import InputError
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

    def test_worker_gives_the_same(self, compute, monkeypatch, tmp_path):
        alone = compute(CountingBackbone())
        monkeypatch.setattr(workers, "DECODERS_FROM", 4)
        # A worker is another process: what it preprocesses leaves no trace here.
        backbone, threads = CountingBackbone(), set()
        backbone.preprocess = lambda image: (
            threads.add(threading.get_ident()) or CountingBackbone.preprocess(backbone, image)
        )
        assert_same(compute(backbone, cache_dir=tmp_path / "other"), alone)
        assert backbone.num_encoded == 23
        assert not threads

    def test_workers(self, monkeypatch):
        assert workers.num_decoders("cpu", workers.DECODERS_FROM - 1) == 0
        assert workers.num_decoders("cpu", workers.DECODERS_FROM) == 1
        monkeypatch.setattr(workers.os, "cpu_count", lambda: 4)
        assert workers.num_decoders("cuda", workers.DECODERS_FROM) == 4


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
        return FileImages(files, tmp_path)

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
        missing = FileImages([tmp_path / "a.png", tmp_path / "b.png"], tmp_path)
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

    def test_only_the_three_arrays_stay(self, compute, small_parts, tmp_path):
        compute(CountingBackbone())
        assert stored_files(tmp_path) == ["digests.npy", "features.npy", "is_readable.npy"]

    def test_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DEFT_CACHE_DIR", str(tmp_path / "here"))
        assert default_cache_dir() == tmp_path / "here"
        compute_image_features(CountingBackbone(), photos(3))
        assert len(stored_files(tmp_path / "here")) == 3
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
        assert len(stored_files(tmp_path / "cache")) == 3

    def test_killed_while_a_part_is_written(self, compute, small_parts, monkeypatch, tmp_path):
        """Half a file is written under a name that does not count."""
        unbroken = compute(CountingBackbone(), cache_dir=tmp_path / "unbroken")
        save = np.savez

        def cut_off(stream, **arrays):
            if stream.name.endswith(".tmp") and "0000000010" in stream.name:
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

    def test_missing_array_is_no_hit(self, compute, tmp_path):
        unbroken = compute(CountingBackbone())
        next((tmp_path / "cache").rglob("is_readable.npy")).unlink()
        backbone = CountingBackbone()
        assert_same(compute(backbone), unbroken)
        assert backbone.num_encoded == 23


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
