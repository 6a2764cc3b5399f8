import numpy as np
import pytest

from pyfacelat import procface as pf

PARTS = {name: i for i, name in enumerate(pf.PART_NAMES)}


def faces(n, seed=0):
    return pf.from_latent(np.random.default_rng(seed).standard_normal((n, pf.Z_DIM)))


def psnr(a, b):
    error = (a.astype(float) - b.astype(float)) ** 2
    return 10 * np.log10(255**2 / max(error.mean(), 1e-12))


def boundary(mask):
    """Centres of the pixel edges where a boolean mask changes, in (x, y)."""
    y, x = np.nonzero(mask[:, 1:] != mask[:, :-1])
    across = np.stack([x + 1.0, y + 0.5], 1)
    y, x = np.nonzero(mask[1:] != mask[:-1])
    return np.concatenate([across, np.stack([x + 0.5, y + 1.0], 1)])


def test_every_output_has_its_shape_type_and_range():
    out = pf.render(faces(3), 48, outputs=pf.OUTPUTS)
    shapes = {
        "image": ((3, 48, 48, 3), np.uint8),
        "landmarks": ((3, 68, 2), np.float32),
        "visibility": ((3, 68), np.float32),
        "depth": ((3, 48, 48), np.float32),
        "uv": ((3, 48, 48, 2), np.float32),
        "normals": ((3, 48, 48, 3), np.float32),
        "parts": ((3, 48, 48), np.uint8),
    }
    assert set(out) == set(shapes)
    for name, (shape, dtype) in shapes.items():
        assert out[name].shape == shape and out[name].dtype == dtype, name
        assert np.isfinite(out[name]).all()
    background = out["parts"] == PARTS["background"]
    assert 0.1 < background.mean() < 0.7
    assert (out["depth"][background] == 0).all() and (out["normals"][background] == 0).all()
    assert (out["depth"][~background] > 4).all() and (out["depth"][~background] < 10).all()
    np.testing.assert_allclose(np.linalg.norm(out["normals"][~background], axis=-1), 1, atol=1e-4)
    assert out["uv"].min() >= 0 and out["uv"].max() <= 1
    assert set(np.unique(out["visibility"])) <= {0.0, 1.0}


def test_all_parts_appear():
    params = pf.with_values(pf.default(), jaw_open=0.8, hair_length=0.0, eye_open=1.0)
    parts = pf.render(params, 128, outputs=("parts",))["parts"][0]
    assert set(np.unique(parts)) == set(range(len(pf.PART_NAMES)))


@pytest.mark.parametrize("size", [61, 200])
def test_no_cracks(size):
    # A crack would be a background pixel with nothing but surface around it.
    empty = pf.render(faces(12, 5), size, outputs=("parts",))["parts"] == PARTS["background"]
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    around = [np.roll(empty, shift, axis=(1, 2)) for shift in shifts]
    lonely = empty & ~np.any(around, axis=0)
    assert not lonely.any(), np.argwhere(lonely)


def test_landmarks_lie_on_the_rendered_lids_and_lips():
    # Rendered three times finer than 256 px, so that the thin cusps at the corners are resolved;
    # distances are in pixels of a 256-px image.
    params = faces(10, 17)
    params[::2, pf.index("jaw_open")] = 0.5
    out = pf.render(params, 768, supersample=1, outputs=("parts",))
    groups = {
        "eye": (tuple(range(36, 48)), ("eye",)),
        "inner lip": ((61, 62, 63, 65, 66, 67), ("mouth",)),
        "outer lip": (tuple(range(48, 60)), ("lips", "mouth")),
    }
    distances: dict[str, list[float]] = {name: [] for name in groups}
    for parts, points, seen in zip(out["parts"], out["landmarks"], out["visibility"], strict=True):
        middle = int(points[27, 0])
        for name, (ids, labels) in groups.items():
            mask = np.logical_or.reduce([parts == PARTS[label] for label in labels])
            if name == "eye" and min(mask[:, :middle].sum(), mask[:, middle:].sum()) < 600:
                continue  # a lid that is almost shut leaves no region to compare with
            if name == "inner lip" and mask.sum() < 600:
                continue
            edges = boundary(mask)
            for k in ids:
                if seen[k]:
                    distances[name].append(np.hypot(*(edges - points[k]).T).min() / 3)
    for name, values in distances.items():
        assert len(values) > 20, name
        assert np.median(values) < 0.25, (name, np.median(values))
        assert np.max(values) < 1.0, (name, np.max(values))


def test_framing_is_ffhq_alignment():
    size = 512
    points = pf.render(faces(30, 8), size, outputs=())["landmarks"].astype(np.float64)
    left, right = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    eyes = (left + right) / 2
    e2e = right - left
    e2m = (points[:, 48] + points[:, 54]) / 2 - eyes
    x = e2e - np.stack([-e2m[:, 1], e2m[:, 0]], 1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    reach = np.maximum(2.0 * np.linalg.norm(e2e, axis=1), 1.8 * np.linalg.norm(e2m, axis=1))
    centre = eyes + 0.1 * e2m
    np.testing.assert_allclose(x, np.tile([1.0, 0.0], (30, 1)), atol=1e-4)
    np.testing.assert_allclose(2 * reach, size, rtol=1e-4)
    np.testing.assert_allclose(centre, size / 2, atol=0.05)


def test_mirrored_parameters_render_the_flipped_image():
    params = faces(12, 9)
    a, b = pf.render(params, 96), pf.render(pf.mirror(params), 96)
    for i in range(12):
        assert psnr(a["image"][i], b["image"][i, :, ::-1]) > 45
    flipped = b["landmarks"][:, pf.FLIP_LANDMARKS]
    flipped[..., 0] = 96 - flipped[..., 0]
    np.testing.assert_allclose(flipped, a["landmarks"], atol=0.02)


def test_threads_and_batches_do_not_change_bits():
    params = faces(7, 10)
    one = pf.render(params, 40, outputs=pf.OUTPUTS, threads=1)
    many = pf.render(params, 40, outputs=pf.OUTPUTS, threads=5)
    alone = pf.render(params[3], 40, outputs=pf.OUTPUTS)
    for name in pf.OUTPUTS:
        np.testing.assert_array_equal(one[name], many[name])
        np.testing.assert_array_equal(one[name][3], alone[name][0])


def test_landmarks_scale_with_size_and_ignore_supersampling():
    params = faces(4, 11)
    small = pf.render(params, 32, supersample=1)["landmarks"]
    large = pf.render(params, 128, supersample=3)["landmarks"]
    np.testing.assert_allclose(4 * small, large, atol=1e-3)
    np.testing.assert_array_equal(pf.render(params, 128, outputs=())["landmarks"], large)


@pytest.mark.parametrize("name", pf.names())
def test_images_and_landmarks_are_continuous_in(name):
    p = pf.PARAMS[pf.index(name)]
    step = 1e-3 * (p.high - p.low)
    middle = np.linspace(p.low + step, p.high - step, 5)
    values = np.stack([middle, middle + step], 1).ravel()
    out = pf.render(pf.sweep(name, values), 48)
    for i in range(0, 10, 2):
        difference = np.abs(out["image"][i].astype(int) - out["image"][i + 1]).mean()
        assert difference < 0.8, f"{name} near {values[i]:.3f}"
        moved = np.abs(out["landmarks"][i] - out["landmarks"][i + 1]).max()
        assert moved < 0.25, f"{name} near {values[i]:.3f}"


@pytest.mark.parametrize("name", [n for n in pf.names() if n not in ("roll",)])
def test_every_parameter_shows(name):
    p = pf.PARAMS[pf.index(name)]
    base = pf.with_values(pf.default(), hair_length=0.4)
    image = pf.render(pf.sweep(name, [p.mean - p.sd, p.mean + p.sd], base), 64)["image"].astype(int)
    assert np.abs(image[0] - image[1]).mean() > 0.02, name


def test_lids_cover_the_eye_as_they_shut_and_the_jaw_opens_the_mouth():
    eyes = pf.render(pf.sweep("eye_open", [0.0, 0.5, 1.0, 1.3]), 128, outputs=("parts",))["parts"]
    area = (eyes == PARTS["eye"]).sum((1, 2))
    assert area[0] < 40 and (np.diff(area) > 20).all()
    mouths = pf.render(pf.sweep("jaw_open", [0.0, 0.3, 1.0]), 128, outputs=("parts",))
    area = (mouths["parts"] == PARTS["mouth"]).sum((1, 2))
    assert area[0] < 20 and (np.diff(area) > 50).all()
    gap = mouths["landmarks"][:, 66, 1] - mouths["landmarks"][:, 62, 1]
    assert gap[0] < 1 and (np.diff(gap) > 3).all()


def test_hidden_landmarks_are_reported():
    out = pf.render(pf.with_values(pf.default(2), yaw=[-40, 40], hair_length=0), 128)
    assert out["visibility"][0, 0] < out["visibility"][0, 16]
    assert out["visibility"][1, 16] < out["visibility"][1, 0]
    assert out["visibility"][:, 27:48].mean() > 0.8


def test_no_faces_and_extreme_values():
    out = pf.render(np.zeros((0, pf.Z_DIM)), 16, outputs=pf.OUTPUTS)
    assert all(len(array) == 0 for array in out.values())
    rng = np.random.default_rng(1)
    low = np.array([p.low - 0.2 * (p.high - p.low) for p in pf.PARAMS])
    high = np.array([p.high + 0.2 * (p.high - p.low) for p in pf.PARAMS])
    corners = np.where(rng.random((24, pf.Z_DIM)) < 0.5, low, high)
    out = pf.render(corners, 32, outputs=pf.OUTPUTS)
    assert all(np.isfinite(array).all() for array in out.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"params": np.zeros((1, 3))}, ["params", "[1, 3]"]),
        ({"params": np.full((1, pf.Z_DIM), np.inf)}, ["params", "finite"]),
        ({"params": pf.with_values(pf.default(), yaw=400.0)}, ["yaw", "400"]),
        ({"size": 0}, ["size", "0"]),
        ({"size": 12.5}, ["size", "12.5"]),
        ({"size": True}, ["size"]),
        ({"size": 4096, "supersample": 8}, ["size * supersample"]),
        ({"supersample": 9}, ["supersample", "9"]),
        ({"outputs": ("image", "normal")}, ["outputs", "normal"]),
        ({"threads": 0}, ["threads", "0"]),
    ],
)
def test_wrong_inputs_raise_value_errors(change, words):
    arguments = {"params": pf.default(), "size": 16} | change
    with pytest.raises(ValueError) as info:
        pf.render(**arguments)
    assert all(word in str(info.value) for word in words), str(info.value)
