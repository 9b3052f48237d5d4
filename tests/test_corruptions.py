"""The fifteen corruptions against their per-image definition, the official bytes, and what their noise should be."""

import hashlib
import io
import pickle

import corruption_references as references
import numpy as np
import pytest
from conftest import SHARED_DATA
from PIL import features
from scipy import ndimage, stats

from alignscape.errors import InputError
from robustness.checksums import CIFAR_10_C
from robustness.cifar10c import CATEGORIES, CORRUPTIONS
from robustness.corruptions import SEVERITIES, cifar_c, load_frost_textures, small_images
from robustness.corruptions.jpeg import CHROMA, LUMA, jpeg_round_trip
from robustness.corruptions.motion import motion_blur_images, motion_kernel
from robustness.corruptions.streams import image_streams
from robustness.corruptions.weather import plasma
from training.data import load_split

RANDOM = tuple(name for name in CORRUPTIONS if name not in (
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression",
))  # fmt: skip


@pytest.fixture(scope="module")
def definition():
    with pytest.warns(UserWarning, match="no frost textures"):
        textures = load_frost_textures()
    references.FROST[:] = textures.images
    return cifar_c(textures)


@pytest.fixture(scope="module")
def images():
    """Smooth scenes, hard edges, noise, and the flat images at which divisions go wrong."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 31
    scenes = [np.stack([y * x, 1 - y, (x + y) / 2], -1), np.stack([np.sin(6 * x) ** 2, x * (1 - y), y], -1)]
    scenes += [(rng.random((32, 32, 3)) < 0.5).astype(float), rng.random((32, 32, 3))]
    scenes += [np.full((32, 32, 3), level) for level in (0.5, 1.0)]
    scenes.append(np.kron(rng.random((4, 4, 3)), np.ones((8, 8, 1))))
    return np.stack([np.uint8(scene * 255) for scene in scenes])


def test_there_are_the_fifteen_in_their_categories(definition):
    assert tuple(definition.corruptions) == CORRUPTIONS
    for category, names in CATEGORIES.items():
        assert all(definition.corruptions[name].category == category for name in names)
    assert tuple(name for name, corruption in definition.corruptions.items() if corruption.random) == RANDOM


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "jpeg_compression"])
def test_equals_the_definition_image_by_image(definition, images, name):
    for severity in (1, 2, 5) if name in ("motion_blur", "snow") else SEVERITIES:
        ours = definition.corrupt(images, name, severity, seed=3)
        streams = image_streams(3, name, severity, 0, len(images))
        theirs = np.stack([getattr(references, name)(x, severity, s) for x, s in zip(images, streams, strict=True)])
        assert ours.dtype == np.uint8
        assert ours.shape == images.shape
        # Elsewhere sums are taken in another order, and truncation may turn the last bit of a float into a level.
        differing = {"elastic_transform": 2e-4, "snow": 1e-4, "motion_blur": 1e-4}.get(name, 0.0)
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= (1 if differing else 0)
        assert (difference > 0).mean() <= differing


def test_jpeg_equals_pillow_where_libraries_agree(definition, images):
    """Without colour, libjpeg-turbo's result is libjpeg's."""
    colourless = np.repeat(images.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3)
    for severity in SEVERITIES:
        ours = definition.corrupt(colourless, "jpeg_compression", severity, seed=0)
        theirs = [references.jpeg_compression(image, severity, None) for image in colourless]
        np.testing.assert_array_equal(ours, theirs)


def test_jpeg_equals_pillow_on_the_official_library(definition, images):
    version = features.version("jpg")
    if features.check("libjpeg_turbo") or not version.startswith("9"):
        pytest.skip(f"Pillow is built on libjpeg {version}, not on IJG libjpeg 9")
    for severity in SEVERITIES:
        ours = definition.corrupt(images, "jpeg_compression", severity, seed=0)
        np.testing.assert_array_equal(ours, [references.jpeg_compression(x, severity, None) for x in images])


@pytest.mark.parametrize(("severity", "percent"), [(1, 40), (2, 70), (3, 84), (4, 100), (5, 125)])
def test_jpeg_is_near_the_standard_in_floats(definition, severity, percent):
    """Off by rounding, but where a frequency lies between two levels and is rounded the other way."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((20, 32, 32, 3)), (0, 1.5, 1.5, 0))
    images = np.uint8(np.clip((smooth - 0.5) * 900 + 127, 0, 255))
    ours = definition.corrupt(images, "jpeg_compression", severity, seed=0)
    exact = np.stack([references.jpeg_in_floats(image, (LUMA, CHROMA), percent) for image in images])
    difference = np.abs(ours - exact)
    assert (difference <= 2).mean() > 0.92
    assert difference.mean() < 0.07 * np.abs(exact - images).mean()


def test_jpeg_refuses_what_it_is_not_for():
    for shape in ((1, 24, 32, 3), (1, 32, 32, 1)):
        with pytest.raises(ValueError, match="multiples of 16"):
            jpeg_round_trip(np.zeros(shape, dtype=np.uint8), 50)


@pytest.mark.parametrize("name", ["pixelate", "zoom_blur", "defocus_blur", "jpeg_compression",
                                  pytest.param("brightness", marks=pytest.mark.slow)])  # fmt: skip
def test_official_bytes_from_the_real_test_set(definition, cifar_root, name):
    clean = load_split("cifar10", "test", cifar_root).images.permute(0, 2, 3, 1).numpy()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (50_000, 32, 32, 3)})
    digest = hashlib.md5(header.getvalue())
    for severity in SEVERITIES:
        for first in range(0, 10_000, 100):
            digest.update(definition.corrupt(clean[first : first + 100], name, severity, seed=0).tobytes())
    assert digest.hexdigest() == CIFAR_10_C[name]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_does_not_depend_on_its_company(definition, images, name):
    together = definition.corrupt(images, name, 4, seed=7, first=40)
    alone = [definition.corrupt(images[i : i + 1], name, 4, seed=7, first=40 + i)[0] for i in range(len(images))]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seed_and_number_of_the_image_decide_the_draws(definition, images, name):
    same = np.stack([images[0]] * 2)
    one, other = (definition.corrupt(same, name, 5, seed=seed) for seed in (0, 1))
    if name in RANDOM:
        assert (one[0] != one[1]).any()
        assert (one != other).any()
        np.testing.assert_array_equal(one, definition.corrupt(same, name, 5, seed=0))
    else:
        np.testing.assert_array_equal(one[0], one[1])
        np.testing.assert_array_equal(one, other)


def grey(level, count=40):
    return np.full((count, 32, 32, 3), level, dtype=np.uint8)


@pytest.mark.parametrize(("severity", "sigma"), list(zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True)))
def test_gaussian_noise_has_its_variance(definition, severity, sigma):
    values = definition.corrupt(grey(127), "gaussian_noise", severity, seed=0) + 0.5  # truncation takes half a level
    # s.d. of a sample s.d. over n = 122,880 values: sigma / sqrt(2 n), 0.2 %; five of them are 1 %. Truncation adds
    # the variance of a uniform on one level.
    expected = np.hypot(255 * sigma, 12**-0.5)
    assert values.std() == pytest.approx(expected, rel=0.01)
    assert values.mean() == pytest.approx(127, abs=5 * expected / values.size**0.5 + 0.01)


@pytest.mark.parametrize(("severity", "rate"), list(zip(SEVERITIES, (500, 250, 100, 75, 50), strict=True)))
def test_shot_noise_is_a_count(definition, severity, rate):
    values = definition.corrupt(grey(100), "shot_noise", severity, seed=0)
    count = stats.poisson(100 / 255 * rate)  # of photons; the level is its share of the rate, truncated
    level = np.floor(np.clip(np.arange(2 * rate) / rate, 0, 1) * 255)
    chance = count.pmf(np.arange(2 * rate))
    mean = chance @ level
    deviation = (chance @ (level - mean) ** 2) ** 0.5
    assert values.mean() == pytest.approx(mean, abs=5 * deviation / values.size**0.5)
    assert values.std() == pytest.approx(deviation, rel=0.01)
    assert (definition.corrupt(grey(0, 1), "shot_noise", severity, seed=0) == 0).all()


@pytest.mark.parametrize(("severity", "amount"), list(zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True)))
def test_salt_and_pepper_rates(definition, severity, amount):
    values = definition.corrupt(grey(100), "impulse_noise", severity, seed=0)
    deviation = (amount / 2 / values.size) ** 0.5
    for extreme in (0, 255):
        assert (values == extreme).mean() == pytest.approx(amount / 2, abs=5 * deviation)
    assert set(np.unique(values)) == {0, 100, 255}


@pytest.mark.parametrize(("severity", "scale"), list(zip(SEVERITIES, (0.2, 0.5, 0.75, 1, 1.5), strict=True)))
def test_fog_keeps_the_brightest_and_has_the_mean_of_its_cloud(definition, severity, scale):
    """On white, fog is (1 + scale cloud) / (1 + scale); by symmetry of the draws the cloud's mean is a half."""
    count = 400
    foggy = (definition.corrupt(grey(255, count), "fog", severity, seed=0) + 0.5) / 255
    means = foggy.mean(axis=(1, 2, 3))
    assert means.mean() == pytest.approx((1 + scale / 2) / (1 + scale), abs=5 * means.std() / count**0.5 + 1e-3)
    # The cloud reaches 0 and 1 in every image.
    np.testing.assert_allclose(foggy.max(axis=(1, 2, 3)), 1, atol=0.01)
    np.testing.assert_allclose(foggy.min(axis=(1, 2, 3)), 1 / (1 + scale), atol=0.01)


def test_a_faster_decay_makes_a_smoother_cloud():
    draws = np.random.default_rng(0).uniform(-1, 1, (200, 32 * 32 - 1))
    roughness = [np.abs(np.diff(plasma(draws, decay), axis=1)).mean() for decay in (1.75, 2.0, 2.5, 3.0)]
    assert roughness == sorted(roughness, reverse=True)
    assert roughness[0] > 1.3 * roughness[-1]


def test_frost_adds_the_mean_of_its_textures(definition):
    textures = load_textures_quietly()
    frosted = definition.corrupt(grey(40, 2000), "frost", 2, seed=0)
    means = frosted.mean(axis=(1, 2, 3))
    expected = np.mean([40 + 0.3 * texture.mean() for texture in textures.images])  # no value reaches 255 here
    assert means.mean() == pytest.approx(expected, abs=1.5)
    groups = {round(t.mean() / 20) for t in textures.images}
    assert len(groups) >= 3  # else the next line would show nothing
    assert means.std() > 0.5 * 0.3 * np.std([texture.mean() for texture in textures.images])


def load_textures_quietly():
    with pytest.warns(UserWarning, match="stand-in"):
        return load_frost_textures()


def test_snow_whitens_more_with_severity_and_never_darkens(definition):
    dark = grey(30)
    means = [definition.corrupt(dark, "snow", severity, seed=0).mean() for severity in SEVERITIES]
    assert means[0] > 30
    assert means[-1] == max(means)
    assert (definition.corrupt(dark, "snow", 1, seed=0) >= 30).all()


def test_motion_blur_of_a_point_is_its_kernel():
    point = np.zeros((1, 41, 41, 1), dtype=np.uint8)
    point[0, 20, 20] = 255
    blurred = motion_blur_images(point, 6, 2.0, np.array([0.0]))[0, :, :, 0]
    weights, offsets = motion_kernel(6, 2.0, np.array([0.0]))
    assert len(weights) == 13
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(offsets[0, :, 0], 0)  # along the row
    # An average of pixels to the right moves the point to the left.
    np.testing.assert_array_equal(blurred[20, 8:21][::-1], np.floor(255 * weights + 0.5))
    assert blurred.sum() == blurred[20, 8:21].sum()


def test_motion_blur_leaves_flat_images_alone():
    flat = np.arange(0, 256, 5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), dtype=np.uint8)
    angles = np.random.default_rng(0).uniform(-180, 180, len(flat))
    np.testing.assert_array_equal(motion_blur_images(flat, 9, 2.5, angles), flat)


def test_elastic_transform_moves_as_far_as_its_constants_say(definition):
    """On a horizontal ramp a displacement is a change of level, wherever the ramp is not cut by the border."""
    ramp = np.tile(np.uint8(np.arange(32) * 8)[None, None, :, None], (300, 32, 1, 3))
    moved = definition.corrupt(ramp, "elastic_transform", 1, seed=0)[:, 12:20, 12:20, 0] + 0.5
    shift = (moved - ramp[:, 12:20, 12:20, 0]).mean(axis=(1, 2)) / 8  # pixels, at the middle of the image
    # There the affine map moves by the mean of the first and third corner's shifts, each uniform on +-2.56.
    assert shift.std() == pytest.approx(2.56 / 3**0.5 / 2**0.5, rel=0.15)
    assert shift.mean() == pytest.approx(0, abs=5 * shift.std() / 300**0.5)


def test_streams_differ_in_every_part_of_their_name():
    names = [(0, "fog", 1, 0), (1, "fog", 1, 0), (0, "snow", 1, 0), (0, "fog", 2, 0), (0, "fog", 1, 1)]
    draws = [next(image_streams(*name, 1)).integers(2**63) for name in names]
    assert len(set(draws)) == len(names)
    assert [g.integers(2**63) for g in image_streams(0, "fog", 1, 0, 2)][1] == draws[4]


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (28, 28, 1)])
def test_small_images_get_worse_with_severity(shape):
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (50, *shape), dtype=np.uint8)
    small = small_images()
    assert "own definition" in small.title
    for name, corruption in small.corruptions.items():
        damage = [np.abs(small.corrupt(clean, name, s, seed=0) - clean.astype(float)).mean() for s in SEVERITIES]
        assert damage == sorted(damage), name
        assert damage[0] > 0
        assert corruption.label == "own definition"


def test_a_definition_survives_the_way_to_another_process(definition, images):
    other = pickle.loads(pickle.dumps(definition))
    np.testing.assert_array_equal(
        other.corrupt(images, "frost", 3, seed=0), definition.corrupt(images, "frost", 3, seed=0)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((1, 32, 32, 3), np.uint8), "rain", 1), "unknown corruption 'rain'.*gaussian_noise"),
        ((np.zeros((1, 32, 32, 3), np.uint8), "fog", 6), "severity 6"),
        ((np.zeros((1, 32, 32, 3), np.float32), "fog", 1), "need uint8"),
        ((np.zeros((1, 28, 28, 1), np.uint8), "fog", 1), r"defined for \(32, 32, 3\)"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(definition, arguments, message):
    with pytest.raises(InputError, match=message):
        definition.corrupt(*arguments, seed=0)


def test_official_frost_textures_are_known_by_their_bytes(tmp_path, recwarn):
    if not (SHARED_DATA / "frost").is_dir():
        pytest.skip("the frost textures are not at ../shared/data/frost")
    textures = load_frost_textures(SHARED_DATA / "frost")
    assert textures.official
    assert not recwarn
    assert cifar_c(textures).corruptions["frost"].label == "regenerated"
    for file in (SHARED_DATA / "frost").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "frost2.png").write_bytes((tmp_path / "frost3.png").read_bytes())
    with pytest.warns(UserWarning, match="frost2.png"):
        assert not load_frost_textures(tmp_path).official


def test_missing_frost_textures_are_named(tmp_path):
    (tmp_path / "frost1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"frost2\.png, frost3\.png, frost4\.jpg, frost5\.jpg"):
        load_frost_textures(tmp_path)


def test_a_broken_frost_texture_is_named(tmp_path):
    for name in ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    with (
        pytest.warns(UserWarning, match="not the official"),
        pytest.raises(InputError, match=r"frost1\.png cannot be read"),
    ):
        load_frost_textures(tmp_path)
