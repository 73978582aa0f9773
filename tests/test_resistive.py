"""Resistive networks: Kirchhoff's law by hand, reciprocity, amplifiers, gradients, training; Newton's method."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import Newton
from eqprop.circuit import Diodes, ResistiveNetwork
from eqprop.substrate import Mismatch, Substrate
from helpers import finite_differences, flat, gap, relative_error

NEWTON = Newton(tol=1e-15, max_steps=100)
TANGENT = eqprop.TangentResponse(relaxation=NEWTON)
NUDGE = eqprop.FiniteNudge(stencil=eqprop.chebyshev(0.02, 4), relaxation=NEWTON)
RBP = eqprop.RecurrentBackprop(relaxation=NEWTON)
X, Y = jnp.asarray([0.8, -0.5, 0.3]), jnp.asarray([0.3, -0.2])


def made(sizes=(3, 5, 4, 2), **kwargs):
    """A model on a circuit of 3 inputs, 5 and 4 hidden nodes and 2 outputs, whose diodes conduct."""
    network = ResistiveNetwork(sizes, volts=3.0, key=jax.random.key(1), **kwargs)
    network = eqx.tree_at(lambda n: n.kernels, network, jax.tree.map(lambda k: 2 * k, network.kernels))
    return eqprop.Model(network, eqprop.SquaredError())


def settle(model):
    return NEWTON(model.network.at(X).drift, model.network.at(X).initial_state())


@eqx.filter_jit
def linearised(model):
    v, unravel = jax.flatten_util.ravel_pytree(settle(model).state)  # pyright: ignore[reportAttributeAccessIssue]
    J = jax.jacfwd(lambda v: flat(model.network.at(X).drift(unravel(v))))(v)
    return v, J, flat(model.readout.teaching(unravel(v), Y))


def test_kirchhoff_by_hand():
    """Currents summed node by node, device by device, in numpy."""
    model = made(transconductance=0.1, forward_gain=3.0, backward_gain=2.0)
    network = model.network
    assert isinstance(network, ResistiveNetwork)
    v = {name: np.asarray(value) for name, value in settle(model).state.items()}
    x = np.asarray(X)
    v["in"] = 3.0 * np.concatenate([x, -x, [1.0, -1.0]])
    into = {name: np.zeros(value.shape) for name, value in v.items()}
    for edge, kernel in network.kernels.items():
        a, b = edge
        forward, back = (1.0, 1.0) if a == "in" else (3.0, 2.0)
        for (i, j), k in np.ndenumerate(np.asarray(kernel)):
            current = abs(k) * (forward * v[a][i] - v[b][j])
            into[b][j] += current
            into[a][i] -= current / back
    for edge, kernel in network.transconductances.items():
        a, b = edge
        for (i, j), t in np.ndenumerate(np.asarray(kernel)):
            into[b][j] += t * v[a][i]
    volts = 1.5 * 1.38064852e-23 * 300.15 / 1.6021766208e-19
    for name in ("l1", "l2", "out"):
        into[name] -= 0.1 * v[name]
        if name != "out":
            pair = np.exp((v[name] - 0.15) / volts) - np.exp((-v[name] - 0.15) / volts)
            into[name] -= 1e-8 / 1e-3 * pair
        assert np.abs(into[name]).max() < 1e-13
    assert np.abs(v["l1"]).max() > 0.2  # where diodes conduct


def test_two_terminal_devices_are_reciprocal():
    """`A = Aᵀ` to the last bit, mismatched or not; controlled sources break it."""
    for model in (made(), Substrate(chip=3, part=Mismatch(1.0)).deploy(made())):
        _, J, g = linearised(model)
        assert gap(J, J.T) < 1e-15
        assert relative_error(jnp.linalg.solve(J, g), jnp.linalg.solve(J.T, g)) < 1e-13
    _, J, _ = linearised(made(transconductance=0.1))
    assert gap(J, J.T) > 0.01


def test_amplifiers_are_a_gauge():
    """The true error is `A A′` times that of equilibrium propagation, layer by layer back from the output, and the
    metric of the network knows it: nudges are exact."""
    model = made(forward_gain=4.0, backward_gain=4.4)
    _, J, g = linearised(model)
    ratio = jnp.linalg.solve(J.T, g) / jnp.linalg.solve(J, g)
    # The ratio of the output is one; J is diagonally similar to a symmetric matrix with weights (A A′) per layer.
    expected = jnp.concatenate([jnp.full(5, 17.6**2), jnp.full(4, 17.6), jnp.ones(2)])
    assert gap(ratio / expected, jnp.ones(11)) < 1e-11
    example, free = model.at(X, Y), settle(model)
    tangent, true = (estimator.estimate(example, free).delta for estimator in (TANGENT, RBP))
    assert relative_error(flat(tangent), flat(true)) < 1e-11
    assert made().network.metric is None


@pytest.mark.parametrize(
    ("law", "transconductance", "estimators"), [("shockley", 0.0, (TANGENT, NUDGE)), ("ngspice", 0.1, (RBP,))]
)
def test_gradients_of_a_circuit(law, transconductance, estimators):
    """The local rule with nudged voltages, and recurrent backpropagation with controlled sources, against finite
    differences of the loss."""
    model = made((3, 3, 2), transconductance=transconductance, diodes=Diodes(law=law))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params):
        model = eqx.combine(params, static)
        return model.readout.loss(settle(model).state, Y)

    true = finite_differences(loss, params)
    for estimator in estimators:

        @eqx.filter_jit
        def gradient(model, estimator=estimator):
            response = estimator.respond(model.at(X, Y), settle(model))
            return eqx.filter_grad(lambda m: estimator.surrogate(m.at(X, Y), response))(model)

        assert relative_error(gradient(model), true) < 1e-7


def test_complex_nudges_of_shockley_diodes():
    """An entire law takes a circle."""
    circle = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.1, 6), relaxation=NEWTON)
    compiled = eqx.filter_jit(lambda e, m: e.error(m.at(X, Y), settle(m)).delta)
    assert relative_error(compiled(circle, made()), compiled(TANGENT, made())) < 1e-6


def test_a_circuit_learns():
    """Twenty steps towards a target; conductances act by their size."""
    model = made(forward_gain=2.0, backward_gain=2.0)
    trainer = eqprop.Trainer(NEWTON, eqprop.FiniteNudge(stencil=eqprop.centred(0.1), relaxation=NEWTON), optax.sgd(1.0))
    step, state = eqx.filter_jit(trainer.step), trainer.init(model, key=jax.random.key(0))
    losses = []
    for _ in range(20):
        state, measured = step(state, (X[None], Y[None]))
        losses.append(float(measured["loss"]))
    assert losses[-1] < 0.5 * losses[0]


def test_alignment_of_a_circuit():
    """Where steps of a fixed size diverge, the truth is found by Newton's method: passive circuits are aligned."""
    nudge = eqprop.FiniteNudge(stencil=eqprop.chebyshev(0.02, 4), relaxation=NEWTON)
    trainer = eqprop.Trainer(NEWTON, nudge, optax.sgd(0.1))
    aligned = eqx.filter_jit(trainer.alignment)(made(), (X[None], Y[None]), key=jax.random.key(0))
    assert float(aligned["cosine_hidden"]) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "bfloat16", "float32"])
@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 3)])
def test_inputs_of_any_type(sizes, dtype):
    """Black and white pixels settle to the voltages, and in the precision, that they have as float64."""
    pixels = jnp.asarray([0, 1, 0, 1, 1, 0])
    model = eqprop.Model(ResistiveNetwork(sizes, key=jax.random.key(0)), eqprop.SquaredError())
    relax = Newton(tol=1e-12)
    states = [
        relax(model.network.at(x).drift, model.network.at(x).initial_state()).state
        for x in (pixels.astype(float), pixels.astype(dtype))
    ]
    assert gap(*states) == 0 and all(v.dtype == float for v in jax.tree.leaves(states[1]))
    assert float(jnp.abs(flat(states[1])).max()) < 1


def test_only_shockley_diodes_are_analytic():
    """The law of ngspice compares voltages: a circle is refused."""
    assert made().network.holomorphic
    circle = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.1, 6), relaxation=NEWTON)
    with pytest.raises(ValueError, match="not holomorphic"):
        circle.check(made(diodes=Diodes(law="ngspice")).network)


def test_what_a_circuit_refuses():
    with pytest.raises(ValueError, match="expected the inputs and at least one layer"):
        ResistiveNetwork((3,), key=jax.random.key(0))
    with pytest.raises(ValueError, match="leak is 0"):
        ResistiveNetwork((3, 2), leak=0.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="expects 3"):
        made().network.embed(jnp.ones(4))


def test_newton():
    """Quadratic near a solution; steps shorten where the full one overshoots; what never settles stays finite."""

    def drift(u):
        return 1.0 - jnp.sinh(40 * u) - u

    stiff = Newton(tol=1e-13, max_steps=300)(drift, jnp.asarray([2.0, -1.0]))
    assert stiff.result == eqprop.RESULTS.successful and int(stiff.num_steps) < 120
    near = [float(Newton(tol=0.0, max_steps=k)(lambda u: 2 - u**2, jnp.asarray([1.42])).residual) for k in (2, 3, 4, 5)]
    assert near[0] < 1e-3 and near[1] < 1e-5 and near[2] < 1e-9 and near[3] < 1e-15
    stuck = Newton(tol=0.0, max_steps=50)(lambda u: 1 + u**2, jnp.asarray([0.5]))
    assert stuck.result == eqprop.RESULTS.max_steps_reached and np.isfinite(float(stuck.residual))
    with pytest.raises(ValueError, match="max_steps"):
        Newton(max_steps=0)


@eqx.filter_jit
def _settled_by(relaxation, keys, gain):
    def one(key):
        network = eqprop.DenseNetwork.chain([6, 5, 4, 3], angle=0.0, key=key)
        network = eqx.tree_at(lambda n: n.kernels, network, jax.tree.map(lambda k: gain * k, network.kernels))
        model = eqprop.Model(network, eqprop.SquaredError())
        x = jax.random.normal(jax.random.fold_in(key, 1), (6,))
        found = relaxation(model.network.at(x).drift, model.network.at(x).initial_state())
        u, unravel = jax.flatten_util.ravel_pytree(found.state)  # pyright: ignore[reportAttributeAccessIssue]
        J = jax.jacfwd(lambda u: flat(model.network.at(x).drift(unravel(u))))(u)
        return found.result == eqprop.RESULTS.successful, u, J

    return jax.vmap(one)(keys)


def settled_by(relaxation, count, gain):
    """Of random untrained chains: whether each settled, where, and the largest real part of the spectrum of `J`."""
    keys = jax.random.split(jax.random.key(0), count)
    settled, u, J = _settled_by(relaxation, keys, jnp.asarray(gain))
    return np.asarray(settled), np.asarray(u), np.linalg.eigvals(np.asarray(J)).real.max(1)


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_newton_settles_where_the_flow_does(gain):
    """Of symmetric networks every one, at a stable point, however many there are. A line search stalls on a tenth of
    them at gain 1 and on most at gain 4."""
    settled, u, growth = settled_by(Newton(tol=1e-10, max_steps=100), 30, gain)
    flowed, v, _ = settled_by(eqprop.Picard(tol=1e-9, max_steps=20_000, damping=0.1), 30, gain)
    assert settled.all() and flowed.all() and growth.max() < 0
    same = np.abs(u - v).max(1) < 1e-6
    assert same.all() if gain == 1 else same.mean() > 0.8
