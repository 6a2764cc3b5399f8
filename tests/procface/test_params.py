import numpy as np
import pytest

from pyfacelat import procface as pf


def latents(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, pf.Z_DIM))


def test_names_match_compiled_order_and_are_unique():
    from pyfacelat import _native

    assert list(_native.face_parameter_names) == pf.names()
    assert len(set(pf.names())) == pf.Z_DIM == len(pf.PARAMS) >= 36
    assert sorted(sum((pf.names(tag) for tag in pf.TAGS), [])) == sorted(pf.names())


def test_from_latent_ignores_scale_and_stays_in_range():
    z = latents(500)
    params = pf.from_latent(z)
    np.testing.assert_allclose(pf.from_latent(7.3 * z), params, rtol=0, atol=1e-6)
    low = np.array([p.low for p in pf.PARAMS])
    high = np.array([p.high for p in pf.PARAMS])
    assert (params > low).all() and (params < high).all()


def test_declared_moments_are_those_of_samples():
    params = pf.from_latent(latents(20000, 1))
    for i, p in enumerate(pf.PARAMS):
        if p.name == "hair_tone":  # coupled to skin tone, same distribution on its own
            assert np.corrcoef(params[:, i], params[:, pf.index("skin_tone")])[0, 1] < -0.3
        assert params[:, i].mean() == pytest.approx(p.mean, abs=0.05 * (p.high - p.low)), p.name
        assert params[:, i].std() == pytest.approx(p.sd, rel=0.08), p.name


def test_yaw_is_narrow_and_the_jaw_reaches_from_shut_to_wide_open():
    params = pf.from_latent(latents(5000, 2))
    assert 12 < params[:, pf.index("yaw")].std() < 17
    jaw = params[:, pf.index("jaw_open")]
    assert (jaw < 0.05).mean() > 0.2 and (jaw > 0.5).mean() > 0.1


def test_to_latent_inverts():
    z = latents(50)
    z /= np.sqrt((z**2).mean(1, keepdims=True))
    np.testing.assert_allclose(pf.to_latent(pf.from_latent(z)), z, atol=1e-6)


def test_mirror_twice_is_identity_and_commutes_with_the_latent_map():
    z = latents(20)
    np.testing.assert_array_equal(pf.mirror(pf.mirror(z)), z)
    np.testing.assert_allclose(
        pf.from_latent(pf.mirror(z)), pf.mirror(pf.from_latent(z)), atol=1e-9
    )
    assert sorted(pf.FLIP_LANDMARKS) == list(range(68))
    np.testing.assert_array_equal(pf.FLIP_LANDMARKS[pf.FLIP_LANDMARKS], np.arange(68))


def test_compose_takes_pose_and_expression_only():
    a, b = pf.from_latent(latents(3, 3)), pf.from_latent(latents(3, 4))
    ideal = pf.compose(a, b)
    for i, p in enumerate(pf.PARAMS):
        source = b if p.tag in ("pose", "expression") else a
        np.testing.assert_array_equal(ideal[:, i], source[:, i])
    one = pf.compose(a[0], b, take="smile")
    assert one.shape == b.shape
    np.testing.assert_array_equal(one[:, pf.index("smile")], b[:, pf.index("smile")])
    np.testing.assert_array_equal(one[:, pf.index("yaw")], np.full(3, a[0, 0]))


def test_sweep_and_with_values():
    row = pf.sweep("smile", [-0.5, 0.0, 1.0])
    assert row.shape == (3, pf.Z_DIM) and (row[:, pf.index("smile")] == [-0.5, 0, 1]).all()
    assert (
        np.delete(row, pf.index("smile"), 1) == np.delete(pf.default(3), pf.index("smile"), 1)
    ).all()
    assert len(pf.sweep("yaw", 5)) == 5
    assert pf.with_values(pf.default(2), yaw=[1, 2])[1, pf.index("yaw")] == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pf.from_latent(np.zeros((2, 5))), ["z", f"[N, {pf.Z_DIM}]", "[2, 5]"]),
        (lambda: pf.from_latent(np.full((1, pf.Z_DIM), np.nan)), ["z", "finite"]),
        (lambda: pf.index("smyle"), ["smyle", "smile"]),
        (lambda: pf.names("poses"), ["tag", "poses"]),
        (lambda: pf.compose(pf.default(), pf.default(), take=("looks",)), ["looks"]),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError) as info:
        call()
    assert all(word in str(info.value) for word in words), str(info.value)
