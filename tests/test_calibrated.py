"""AsymEP with a current that is estimated from measured responses, against the exact current and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop import AsymmetricNudge, CalibratedAsymmetric, metrics
from eqprop.estimator import Device
from helpers import SETTLE, chain, flat, free_phase, gap, oracle, problem, respond, slope

KEY = jax.random.key(3)
NODES = eqprop.cauchy(0.2, 12)


def calibrated(**settings) -> CalibratedAsymmetric:
    return CalibratedAsymmetric(**{"stencil": NODES, "relaxation": SETTLE} | settings)


def matrix(estimator: CalibratedAsymmetric, field, s, key) -> jax.Array:
    """`K̂`, column by column."""
    unravel = ravel_pytree(s)[1]
    current = estimator.current(field, s, key=key)
    return jax.vmap(lambda v: flat(current(unravel(v))), out_axes=1)(jnp.eye(flat(s).size))


@eqx.filter_jit
def matrices(estimator: CalibratedAsymmetric, field, s, keys) -> jax.Array:
    return jax.vmap(lambda key: matrix(estimator, field, s, key))(keys)


@pytest.mark.parametrize("name", ["asymmetric", "loop", "conv"])
def test_all_probes_without_noise_are_the_exact_current(name):
    """The same error vectors as AsymEP, whatever the network, to rounding; and no key is needed."""
    p = problem(name)
    free = free_phase(p.model, p.x)
    exact = respond(AsymmetricNudge(stencil=NODES, relaxation=SETTLE), p.model, p.x, p.y, free)
    measured = respond(calibrated(), p.model, p.x, p.y, free)
    error = gap(measured.payload, exact.payload)
    print(name, error)
    assert error < 1e-10


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_the_current_is_the_smallest_skew_part_that_agrees(gain):
    """Against dense algebra in the metric: `K̂` is `K` between the probes, and zero beyond them."""
    network = chain(90.0, key=KEY, feedback_gain=gain)
    field = network.at(jnp.ones(6))
    s = field.rates(field.initial_state())
    forward, _ = field.jacobian(s)
    n, unravel = flat(s).size, ravel_pytree(s)[1]
    A = jax.vmap(lambda v: flat(forward(unravel(v))), out_axes=1)(jnp.eye(n))
    level = network.metric or dict.fromkeys(s, 1.0)
    root = np.sqrt(np.asarray(flat({name: jnp.full_like(v, level[name]) for name, v in s.items()})))
    scaled = root[:, None] * np.asarray(A) / root
    K = scaled.T - scaled
    full = np.asarray(matrix(calibrated(), field, s, None))
    np.testing.assert_allclose(full, K * root / root[:, None], atol=1e-14)
    part = np.asarray(matrix(calibrated(probes=4), field, s, KEY)) / root * root[:, None]
    left, strengths, _ = np.linalg.svd(part)
    seen = left[:, :4]
    assert strengths[4] < 1e-13 < 1e-3 < strengths[3]
    np.testing.assert_allclose(part, seen @ seen.T @ K @ seen @ seen.T, atol=1e-13)


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_what_is_symmetric_in_its_metric_gets_no_current(gain):
    """However few probes there are."""
    field = chain(0.0, key=KEY, feedback_gain=gain).at(jnp.ones(6))
    s = field.rates(field.initial_state())
    assert float(jnp.abs(matrix(calibrated(probes=3), field, s, KEY)).max()) < 1e-15


def test_the_share_that_probes_see():
    """`P (P − 1)/n (n − 1)` of the squared norm, on average over draws."""
    p = problem("asymmetric")
    field = p.model.network.at(p.x[0])
    s = field.rates(field.initial_state())
    n, draws = flat(s).size, 2000
    whole = float(jnp.sum(matrix(calibrated(), field, s, None) ** 2))
    for count in (3, 6, 9):
        found = np.asarray(
            jnp.sum(matrices(calibrated(probes=count), field, s, jax.random.split(KEY, draws)) ** 2, axis=(1, 2))
        )
        expected = count * (count - 1) / (n * (n - 1))
        share, error = found.mean() / whole, found.std() / whole / draws**0.5
        print(count, share, expected, error)
        assert abs(share - expected) < 4 * error


def test_noise_of_the_current():
    """Each entry has the standard deviation that the docstring says, at any number of samples."""
    p = problem("asymmetric")
    field = p.model.network.at(p.x[0])
    s = field.rates(field.initial_state())
    n, exact = flat(s).size, matrix(calibrated(), field, s, None)
    for noise, samples in ((0.1, 1), (0.1, 16)):
        found = matrices(calibrated(noise=noise, samples=samples), field, s, jax.random.split(KEY, 4000))
        above = (np.asarray(found) - np.asarray(exact))[:, *np.triu_indices(n, 1)]
        expected = noise * np.sqrt(2 / (n * samples))
        np.testing.assert_allclose(above.std(axis=0).mean(), expected, rtol=0.01)
        np.testing.assert_allclose(above.mean(axis=0), 0, atol=5 * expected / 4000**0.5)


def test_the_error_follows_the_noise_as_the_closed_form_says():
    """Root mean square over draws against `τ² (‖M⁻ᵀ‖² ‖δ‖² − ‖M⁻ᵀ δ‖²)`, and a slope of one."""
    p, draws = problem("asymmetric"), 400
    exact = oracle(*p)
    inverse = np.linalg.inv(np.diag(1 / np.asarray(exact.D[0])) - np.asarray(exact.A[0])).T
    delta = np.asarray(exact.rbp[0])
    n = delta.size
    factor = np.sum(inverse**2) * np.sum(delta**2) - np.sum((inverse @ delta) ** 2)
    x, y = p.x[:1], p.y[:1]
    free = jax.tree.map(lambda v: v[0], free_phase(p.model, x))

    @eqx.filter_jit
    def measured(noise):
        estimator = calibrated(noise=noise, stencil=eqprop.cauchy(0.02, 4))
        example = p.model.at(x[0], y[0])
        return jax.vmap(lambda key: flat(estimator.error(example, free, key=key).delta))(jax.random.split(KEY, draws))

    noises = np.array([1e-4, 1e-3, 1e-2])
    found = [np.sqrt(np.mean(np.sum((np.asarray(measured(s)) - delta) ** 2, axis=1))) for s in jnp.asarray(noises)]
    expected = noises * np.sqrt(2 / n * factor)
    fitted = slope(np.log(noises), np.log(found))
    print(f"measured over closed form {found / expected}, slope {fitted:.4f}")
    np.testing.assert_allclose(found / expected, 1, rtol=0.1)  # 400 draws of some ten degrees of freedom
    assert abs(fitted - 1) < 0.01


def test_alignment_by_number_of_probes():
    """Plain nudges are misaligned; the cosine rises with the probes, and ends at one."""
    p = problem("asymmetric")
    true, free = oracle(*p).rbp, free_phase(p.model, p.x)

    @eqx.filter_jit
    def cosine(estimator):
        def one(x, y, free, delta, key):
            found = estimator.respond(p.model.at(x, y), free, key=key).payload
            return metrics.cosine(flat(found), delta)

        mean = lambda key: jnp.mean(jax.vmap(one, (0, 0, 0, 0, None))(p.x, p.y, free, true, key))
        return jnp.mean(jax.lax.map(mean, jax.random.split(KEY, 30)))

    plain = eqprop.FiniteNudge(stencil=eqprop.centred(1e-2), relaxation=SETTLE)
    found = [float(cosine(plain))]
    found += [float(cosine(calibrated(probes=n, stencil=eqprop.centred(1e-2)))) for n in (6, 9, 12)]
    print(found)
    assert found == sorted(found) and found[-1] > 1 - 1e-6 and found[0] < 0.99


def test_what_is_refused():
    p = problem("asymmetric")
    example = p.model.at(p.x[0], p.y[0])
    s = example.field.rates(example.field.initial_state())
    for settings, message in (
        ({"probes": 1}, "probes is 1; expected a number of at least 2"),
        ({"noise": -1.0}, "noise is -1.0; expected a number of at least 0"),
        ({"samples": 0}, "samples is 0; expected a number of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrated(**settings)
    with pytest.raises(ValueError, match="probes is 13, but the network has 12 neurons"):
        calibrated(probes=13).current(example.field, s, key=KEY)
    for random in ({"probes": 5}, {"noise": 0.1}):
        with pytest.raises(ValueError, match="draws probes and noise: pass a key"):
            calibrated(**random).current(example.field, s)
    with pytest.raises(ValueError, match="reads with errors of its own"):
        calibrated().on_device(Device(reading=lambda s, *, phase, key=None: s))
    assert calibrated().on_device(Device(relaxation=eqprop.Sweep())).relaxation == eqprop.Sweep()
