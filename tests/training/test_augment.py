import numpy as np
from PIL import Image

from deft_plugin.training.augment import augment_image

GRADIENT = Image.fromarray(np.arange(1, 1 + 32 * 48, dtype=np.uint16).astype(np.uint8).reshape(32, 48)).convert("RGB")


def test_size_is_kept_and_the_same_generator_gives_the_same_view():
    views = [augment_image(GRADIENT, np.random.default_rng((0, 1, 2))) for _ in range(2)]
    assert views[0].size == GRADIENT.size
    assert views[0].tobytes() == views[1].tobytes()


def test_shifts_by_an_eighth_at_most_and_mirrors_every_second_one():
    white = Image.new("RGB", (32, 32), "white")
    shifts, mirrored = set(), 0
    columns = np.where(np.arange(32) < 16, 255, 60).astype(np.uint8)
    half = Image.fromarray(np.tile(columns, (32, 1))).convert("RGB")
    for seed in range(200):
        view = np.asarray(augment_image(white, np.random.default_rng(seed)))[..., 0]
        rows = np.flatnonzero(view.any(1))
        shifts.add(32 - len(rows))
        mirrored += np.asarray(augment_image(half, np.random.default_rng(seed)))[16, 8, 0] == 60
    assert shifts == {0, 1, 2, 3, 4}
    assert 70 < mirrored < 130
