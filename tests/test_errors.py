"""Bad input is refused by a `ValueError` of one line: what was given, what was expected, what to do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import optax
import pytest

import eqprop
from eqprop import (
    Anderson,
    AsymmetricNudge,
    BackpropThroughTime,
    ContrastiveHebbian,
    ConvNetwork,
    DenseNetwork,
    ExactHomeostasis,
    FiniteNudge,
    HopfieldNetwork,
    OscillatingNudge,
    Picard,
    RecurrentBackprop,
    SoftmaxReadout,
    SquaredError,
    Sweep,
)
from helpers import Rectified, Ring, chain, conv, hopfield, loop, problem

KEY = jax.random.key(0)
PICARD = Picard()
CIRCLE = eqprop.cauchy(0.1, 4)


def plain(**methods):
    """A plain module with those attributes and no others."""
    return type("Mine", (eqx.Module,), methods)()


def model(network):
    return eqprop.Model(network, SquaredError())


def embed(network, shape):
    return jax.eval_shape(network.embed, jax.ShapeDtypeStruct(shape, float))


def dense(edges, layers=None, **kwargs):
    return DenseNetwork(4, layers or {"l1": 3, "out": 2}, edges, key=KEY, **kwargs)


FORWARD = [("in", "l1"), ("l1", "out")]
RATES = {"l1": jnp.zeros(3), "out": jnp.zeros(2)}

REFUSED = {
    # Graphs.
    "unknown layer": (
        lambda: dense([("in", "l1"), ("l1", "oot")]),
        r"no layer 'oot'; there are in, l1, out\. Did you mean 'out'\?",
    ),
    "unknown feedback": (lambda: dense(FORWARD, feedback=[("outt", "l1")]), r"no layer 'outt'.*Did you mean 'out'\?"),
    "no pair": (lambda: dense(["l1-out"]), r"'l1-out' is no pair of layer names, such as \('l1', 'l2'\)"),
    "duplicate edge": (lambda: dense([*FORWARD, ("in", "l1")]), r"Edges given twice: in -> l1\. Give each once"),
    "duplicate feedback": (lambda: dense(FORWARD, feedback=[("l1", "out")]), "Edges given twice: l1 -> out"),
    "edge into the input": (lambda: dense([*FORWARD, ("l1", "in")]), "ends at 'in'; the input is clamped"),
    "layer called in": (lambda: dense(FORWARD, {"in": 3}), "called 'in', the name of the input. Rename it"),
    "empty layer": (lambda: dense(FORWARD, {"l1": 0, "out": 2}), "Sizes below one: l1: 0"),
    "no layers": (lambda: DenseNetwork(4, {}, [], key=KEY), "has no layers. Give at least one"),
    "short chain": (lambda: DenseNetwork.chain([4], key=KEY), r"sizes is \[4\]: a chain needs the input's size"),
    "both directions": (
        lambda: HopfieldNetwork(4, {"l1": 3, "out": 2}, [*FORWARD, ("out", "l1")], key=KEY),
        "also runs backwards.*Give each pair of different layers once",
    ),
    "loop on a layer": (lambda: HopfieldNetwork(4, {"l1": 3}, [("l1", "l1")], key=KEY), "also runs backwards"),
    # Images.
    "dense input": (
        lambda: embed(chain(0.0, key=KEY), (2, 5)),
        r"shape \(2, 5\), 10 entries.*expects 6\. Resize.*vmap",
    ),
    "conv input": (
        lambda: embed(conv(0.0, key=KEY), (8, 8, 3)),
        r"shape \(8, 8, 3\), but .*expects \(8, 8, 2\).*image_shape",
    ),
    "conv batch": (lambda: embed(conv(0.0, key=KEY), (5, 8, 8, 2)), r"a batch goes through jax\.vmap"),
    "small image": (
        lambda: ConvNetwork.chain((16, 16, 3), key=KEY),
        "2 pixels a side does not pass the edge conv3 -> out: it would pool 0 by 2",
    ),
    "odd image": (
        lambda: ConvNetwork.chain((9, 8, 1), (2, 2), key=KEY),
        "9 pixels a side.*edge in -> conv1.*pool 9 by 2",
    ),
    "flat image": (
        lambda: ConvNetwork.chain((8, 8), (2, 2), key=KEY),
        r"image_shape is \(8, 8\); give \(height, width, channels\)",
    ),
    # Targets and readouts.
    "target": (
        lambda: SquaredError().loss(RATES, jnp.zeros(3)),
        r"target has shape \(3,\), but the readout has 2 scores.*integer",
    ),
    "softmax target": (
        lambda: SoftmaxReadout(2, 5, key=KEY).teaching(RATES, jnp.zeros(2)),
        r"target has shape \(2,\), but the readout has 5 scores\. Give a vector of 5 targets",
    ),
    "features": (
        lambda: SoftmaxReadout(7, 5, key=KEY).predict(RATES),
        "'out' has 2 neurons, but the readout expects 7.*to 2",
    ),
    "readout layer": (
        lambda: SquaredError(layer="top").predict(RATES),
        "reads layer 'top', but the network has l1, out",
    ),
    # Stencils.
    "no points": (lambda: eqprop.cauchy(0.1, 0), "num_points is 0; a stencil has at least one point"),
    "no radius": (
        lambda: eqprop.centred(0.0),
        "The beta is 0.0; a nudge has a finite strength other than zero, and a finite inverse in float64. Take",
    ),
    # Estimators.
    "norm bound": (
        lambda: RecurrentBackprop(relaxation=PICARD, norm_bound=0.0),
        "norm_bound is 0.0; expected a number above 0, or None",
    ),
    "negative bound": (lambda: FiniteNudge(stencil=CIRCLE, relaxation=PICARD, norm_bound=-1.0), "norm_bound is -1.0"),
    **{
        f"bptt on {r.__name__}": (
            lambda r=r: BackpropThroughTime(relaxation=r()),
            rf"cannot differentiate through {r.__name__}.*FixedSteps\(num_steps=40\), or use RecurrentBackprop",
        )
        for r in (Picard, Sweep, Anderson)
    },
    "complex nudge": (
        lambda: FiniteNudge(stencil=CIRCLE, relaxation=PICARD).check(Rectified(weights=jnp.eye(4))),
        r"nudges off the real axis, but Rectified is not holomorphic\. Nudge it by FiniteNudge\(eqprop\.centred",
    ),
    "complex asymmetric nudge": (
        lambda: AsymmetricNudge(stencil=CIRCLE, relaxation=PICARD).check(Rectified(weights=jnp.eye(4))),
        "Rectified is not holomorphic",
    ),
    "turning nudge": (
        lambda: OscillatingNudge(beta=0.1).check(Rectified(weights=jnp.eye(4))),
        "nudges off the real axis, but Rectified is not holomorphic. Nudge it by FiniteNudge",
    ),
    "oscillation": (lambda: OscillatingNudge(beta=0.1, samples=2), "samples is 2; expected a number of at least 3"),
    "no energy": (
        lambda: ContrastiveHebbian(stencil=CIRCLE, relaxation=PICARD).check(chain(0.0, key=KEY)),
        "contrasts energies, but DenseNetwork has none. Use FiniteNudge, or an energy network",
    ),
    "conv homeostasis": (
        lambda: ExactHomeostasis().check(conv(0.0, key=KEY)),
        "this ConvNetwork has none, as its Jacobian depends on the state. Use SkewHomeostasis",
    ),
    # A network of one's own.
    "plain module": (
        lambda: model(plain(embed=lambda self, x: x, drive=lambda self, s: s, holomorphic=True)),
        r"Mine is no network\. Let it subclass eqprop\.AbstractNetwork, with the fields activation and holomorphic",
    ),
    "unknown activation": (
        lambda: FiniteNudge(stencil=CIRCLE, relaxation=PICARD).check(chain(0.0, key=KEY, activation=jax.nn.relu)),
        r"off the real axis, but DenseNetwork is not holomorphic\. Nudge it by FiniteNudge\(eqprop\.centred",
    ),
    # Metrics.
    "angle": (lambda: eqprop.metrics.weight_angle(loop(key=KEY)), "DenseNetwork has no reciprocal pairs"),
    "angle of tied weights": (
        lambda: eqprop.metrics.weight_angle(hopfield(key=KEY)),
        "HopfieldNetwork has no reciprocal",
    ),
    "probes without a key": (
        lambda: eqprop.metrics.functional_asymmetry(
            conv(0.0, key=KEY).at(jnp.ones((8, 8, 2))), embed(conv(0.0, key=KEY), (8, 8, 2))
        ),
        "ConvNetwork is probed at random: pass functional_asymmetry",
    ),
}


@pytest.fixture
def unchecked():
    """Without the type checks of the test run, which a user does not have either: they would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, unchecked):
    """In one line that says what to do."""
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_trainer_checks_before_it_starts():
    """Wrong combinations are refused by `init`, and by an estimator called on its own."""
    p = problem("conv")
    for estimator, homeostasis in [
        (ContrastiveHebbian(stencil=CIRCLE, relaxation=PICARD), None),
        (RecurrentBackprop(relaxation=PICARD), ExactHomeostasis()),
    ]:
        with pytest.raises(ValueError, match="ConvNetwork"):
            eqprop.Trainer(PICARD, estimator, optax.sgd(0.1), homeostasis).init(p.model, key=KEY)
    rectified = model(Rectified(weights=jnp.eye(4)))
    with pytest.raises(ValueError, match="not holomorphic"):
        field = rectified.network.at(jnp.ones(6))
        free = PICARD(field.drift, field.initial_state())
        FiniteNudge(stencil=CIRCLE, relaxation=PICARD).respond(rectified.at(jnp.ones(6), jnp.zeros(4)), free)


def test_what_is_accepted_besides():
    """Real stencils on networks that are not analytic, circles on those that are said to be, dense inputs of any
    shape."""
    FiniteNudge(stencil=eqprop.centred(0.1), relaxation=PICARD).check(Rectified(weights=jnp.eye(4)))
    assert model(Ring(KEY)).network.holomorphic
    for holomorphic in (None, False, True):
        network = chain(0.0, key=KEY, activation=jnp.sin, holomorphic=holomorphic)
        assert network.holomorphic == (holomorphic is True)
        assert chain(0.0, key=KEY, holomorphic=holomorphic).holomorphic == (holomorphic is not False)
    FiniteNudge(stencil=CIRCLE, relaxation=PICARD).check(network)
    assert embed(chain(0.0, key=KEY), (2, 3))["l1"].shape == (5,)
