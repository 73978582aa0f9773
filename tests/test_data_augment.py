"""Preprocessing against plain NumPy, image by image."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.data import (
    CIFAR_MEAN,
    CIFAR_STD,
    Preprocess,
    Rows,
    batch_key,
    cifar_preprocess,
    normalise,
    random_crop_flip,
)


def random_images(*shape):
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def candidates(image, padding, flip):
    """Every image that cropping and mirroring can make, by offset and side."""
    height, width = image.shape[:2]
    spread = ((padding, padding), (padding, padding)) + ((0, 0),) * (image.ndim - 2)
    padded = np.pad(image, spread)
    for i in range(2 * padding + 1):
        for j in range(2 * padding + 1):
            crop = padded[i : i + height, j : j + width]
            yield (i, j, False), crop
            if flip:
                yield (i, j, True), crop[:, ::-1]


@pytest.mark.parametrize("shape", [(40, 9, 7), (40, 8, 8, 3)])
@pytest.mark.parametrize("padding, flip", [(0, True), (2, False), (2, True)])
def test_augmentation_is_one_of_the_numpy_crops(shape, padding, flip):
    images = random_images(*shape)
    drawn = random_crop_flip(jnp.asarray(images), padding, flip, key=jax.random.key(0))
    assert drawn.dtype == jnp.uint8
    seen = set()
    for image, result in zip(images, np.asarray(drawn), strict=True):
        matches = [which for which, crop in candidates(image, padding, flip) if (crop == result).all()]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > (1 if padding == 0 else 10)


def test_every_crop_and_side_is_as_likely():
    n = 40_000
    image = np.arange(1, 10, dtype=np.uint8).reshape(3, 3)
    images = jnp.broadcast_to(jnp.asarray(image), (n, 3, 3))
    drawn = np.asarray(random_crop_flip(images, 1, True, key=jax.random.key(1)))
    possible = dict(candidates(image, 1, True))
    counts = [(drawn == crop).all(axis=(1, 2)).sum() for crop in possible.values()]
    assert len(possible) == 18 and sum(counts) == n
    # Eighteen equal bins: five deviations.
    assert np.abs(np.array(counts) - n / 18).max() < 5 * np.sqrt(n / 18)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-14)])
def test_published_normalisation(dtype, tolerance):
    images = random_images(5, 32, 32, 3)
    expected = np.empty(images.shape)
    for c, (mean, std) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), strict=True)):
        expected[..., c] = (images[..., c] / 255 - mean) / (1.5 * std)
    result = cifar_preprocess(augment=False, dtype=dtype)(images)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=0, atol=3 * tolerance)
    same = normalise(jnp.asarray(images), CIFAR_MEAN, CIFAR_STD, dtype=dtype)
    np.testing.assert_array_equal(result, same)


def test_published_augmentation_is_crop_and_flip_then_normalise():
    images, key = random_images(16, 32, 32, 3), jax.random.key(3)
    preprocess = cifar_preprocess()
    cropped = random_crop_flip(jnp.asarray(images), 2, True, key=key)
    expected = cifar_preprocess(augment=False)(cropped)
    np.testing.assert_array_equal(preprocess(images, key=key), expected)
    # Without a key, as for evaluation, images stay as they are.
    np.testing.assert_array_equal(preprocess(images), cifar_preprocess(augment=False)(images))
    compiled = eqx.filter_jit(preprocess)(images, key=key)
    np.testing.assert_allclose(compiled, expected, rtol=0, atol=1e-6)


def test_flatten_and_maximum():
    images = random_images(6, 8, 8) % 17
    flat = Preprocess(16, flatten=True, image_shape=(8, 8))(images)
    assert flat.shape == (6, 64) and flat.dtype == jnp.float32
    np.testing.assert_allclose(flat, images.reshape(6, 64) / 16, rtol=1e-6)
    # A configuration file gives lists and whole numbers.
    configured = Preprocess(16, [1], 2, image_shape=[8, 8])
    np.testing.assert_allclose(configured(images), (images / 16 - 1) / 2, rtol=1e-6)


def test_images_get_the_channel_that_the_network_was_built_for():
    images = random_images(6, 8, 7)
    grey = Preprocess(mean=0.5, std=0.2, crop_padding=2, flip=True, image_shape=(8, 7, 1))  # pyright: ignore
    without = Preprocess(mean=0.5, std=0.2, crop_padding=2, flip=True, image_shape=(8, 7))  # pyright: ignore
    for key in (None, jax.random.key(0)):
        result = grey(images, key=key)
        assert result.shape == (6, 8, 7, 1)
        np.testing.assert_array_equal(result[..., 0], without(images, key=key))
        np.testing.assert_array_equal(grey(jnp.asarray(images)[..., None], key=key), result)
    with pytest.raises(ValueError, match=r"shape \[8, 7, 1\] \(56 values\), expected \[8, 7, 3\] \(168\)"):
        Preprocess(image_shape=(8, 7, 3))(images)


def test_rows_of_a_file_are_preprocessed_as_the_array_is():
    images = random_images(9, 8, 7)
    chosen = np.array([1, 4, 8])
    np.testing.assert_array_equal(Preprocess()(Rows(images, chosen)), Preprocess()(images[chosen]))


def test_a_resumed_run_draws_the_same():
    images = random_images(8, 32, 32, 3)
    preprocess = eqx.filter_jit(cifar_preprocess())
    runs = [[preprocess(images, key=batch_key(5, 2, step)) for step in range(4)] for _ in range(2)]
    for step in range(4):
        np.testing.assert_array_equal(runs[0][step], runs[1][step])
    different = [batch_key(5, 2, 3), batch_key(5, 3, 2), batch_key(2, 5, 3), batch_key(5, 2, 4)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in different}) == 4


def test_steps_do_not_compile_again():
    preprocess = eqx.filter_jit(eqx.debug.assert_max_traces(cifar_preprocess(), max_traces=1))
    for step in range(3):
        preprocess(random_images(8, 32, 32, 3), key=batch_key(0, 0, step))


@pytest.mark.parametrize(
    "preprocess, shape, message",
    [
        (Preprocess(image_shape=(28, 28), flatten=True), (2, 8, 8), r"\(64 values\), .*\(784\)"),
        (Preprocess(255, CIFAR_MEAN, CIFAR_STD), (2, 28, 28), "mean has 3 values"),
        (Preprocess(255, (0.0,), (1.0, 2.0)), (2, 8, 8, 3), "std has 2 values"),
        (Preprocess(crop_padding=2), (2, 64), "give .H, W. or .H, W, C."),
    ],
)
def test_a_wrong_shape_is_explained(preprocess, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        preprocess(random_images(*shape), key=jax.random.key(0))
    assert "\n" not in str(caught.value)


def test_misuse_is_explained():
    with pytest.raises(ValueError, match="images are float64; give the uint8"):
        Preprocess()(random_images(2, 8, 8) / 255)
    with pytest.raises(ValueError, match="must be positive"):
        Preprocess(0)
    with pytest.raises(ValueError, match="must be positive"):
        Preprocess(std=0.0)  # pyright: ignore
    with pytest.raises(ValueError, match="crop_padding=-1"):
        Preprocess(crop_padding=-1)
    with jax.enable_x64(False), pytest.raises(ValueError, match="JAX_ENABLE_X64=1"):
        Preprocess(dtype="float64")(random_images(2, 8, 8))


def test_noise_has_its_deviation_leaves_evaluation_alone_and_repeats_with_its_key():
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32), np.uint8)
    plain, noisy = Preprocess(), Preprocess(noise=0.5)
    assert np.array_equal(noisy(images), plain(images))
    added = np.asarray(noisy(images, key=jax.random.key(1)) - plain(images))
    # 65,536 draws: the standard errors of mean and deviation are 0.002 and 0.0014.
    assert abs(added.mean()) < 0.01 and abs(added.std() - 0.5) < 0.006
    assert np.array_equal(noisy(images, key=jax.random.key(1)), noisy(images, key=jax.random.key(1)))
    assert not np.array_equal(noisy(images, key=jax.random.key(1)), noisy(images, key=jax.random.key(2)))
