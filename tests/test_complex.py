"""No complex matrix product or convolution is ever compiled; and the same code runs in float32, for every platform."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import AsymmetricNudge, ExactHomeostasis, FiniteNudge, Picard, SkewHomeostasis
from helpers import chain, conv, estimate, relative_error

PRODUCT = re.compile(
    r"= (dot_general|conv_general_dilated)\["
    r"|\bstablehlo\.(dot|dot_general|convolution)\b"
    r"|\b(dot|convolution|custom-call)\("
)
COMPLEX = re.compile(r"complex<|\bc(64|128)\[")
"""As they are written in jaxprs, StableHLO and HLO."""


def complex_products(text: str) -> list[str]:
    """The lines of a jaxpr, of StableHLO or HLO in which a product or convolution meets a complex array."""
    return [line.strip() for line in text.splitlines() if PRODUCT.search(line) and COMPLEX.search(line)]


def real_products(text: str) -> list[str]:
    return [line for line in text.splitlines() if PRODUCT.search(line) and not COMPLEX.search(line)]


RELAX = Picard(tol=1e-4, max_steps=30)
NODES = eqprop.cauchy(0.2, 4)
CASES = {
    "dense": (lambda key: chain(90.0, key=key), FiniteNudge(stencil=NODES, relaxation=RELAX), ExactHomeostasis()),
    "conv": (lambda key: conv(90.0, key=key), FiniteNudge(stencil=NODES, relaxation=RELAX), SkewHomeostasis()),
    "dense_asymmetric_nudge": (
        lambda key: chain(90.0, key=key),
        AsymmetricNudge(stencil=NODES, relaxation=RELAX),
        SkewHomeostasis(),
    ),
    "conv_asymmetric_nudge": (
        lambda key: conv(90.0, key=key),
        AsymmetricNudge(stencil=NODES, relaxation=RELAX),
        SkewHomeostasis(),
    ),
}


def training_step(case):
    """A trainer's step as a function of arrays alone, and its arguments."""
    make, estimator, homeostasis = CASES[case]
    network = make(jax.random.key(0))
    is_conv = isinstance(network, eqprop.ConvNetwork)
    model = eqprop.Model(network, eqprop.SoftmaxReadout(4 if is_conv else 3, 3, key=jax.random.key(1)))
    trainer = eqprop.Trainer(RELAX, estimator, optax.sgd(0.1), homeostasis)
    state = trainer.init(model, key=jax.random.key(2))
    x = jax.random.normal(jax.random.key(3), (2, *(network.image_shape if is_conv else (6,))))
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays, x, y):
        new, metrics = trainer.step(eqx.combine(arrays, static), (x, y))
        return eqx.filter(new, eqx.is_array), metrics

    return jax.jit(step), (arrays, x, jnp.asarray([0, 2]))


@pytest.mark.parametrize("case", CASES)
def test_no_complex_product_is_compiled(case):
    """Neither in what the library asks for, nor in what JAX emits, nor in what XLA makes of it: an N-point nudge costs
    N real relaxations."""
    step, arguments = training_step(case)
    traced = step.trace(*arguments)
    lowered = traced.lower()
    for text in (str(traced.jaxpr), lowered.as_text(), lowered.compile().as_text() or ""):
        assert COMPLEX.search(text), "the nudges of this step are not complex: the test tests nothing"
        assert complex_products(text) == []
    assert real_products(str(traced.jaxpr)) and real_products(lowered.as_text())


def test_the_detector_detects():
    """A complex matrix product is found at all three levels, a complex convolution in the jaxpr, before JAX makes three
    real ones of it where the platform has none; real ones are not found."""
    matrix, image = jnp.ones((8, 8), complex), jnp.ones((1, 8, 8, 2), complex)
    kernel = jnp.ones((3, 3, 2, 2), complex)
    convolve = lambda a, k: jax.lax.conv_general_dilated(
        a, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    for function, arguments in [(jnp.matmul, (matrix, matrix)), (convolve, (image, kernel))]:
        for cast in (lambda a: a, jnp.real):
            traced = jax.jit(function).trace(*map(cast, arguments))
            texts = [str(traced.jaxpr), traced.lower().as_text(), traced.lower().compile().as_text()]
            for text in texts if function is jnp.matmul else texts[:1]:
                assert bool(complex_products(text)) == (cast is not jnp.real)
                assert bool(real_products(text)) == (cast is jnp.real)


@pytest.mark.parametrize("case", ["dense", "conv"])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_step_lowers_for_every_platform(case, platform):
    """Without such a device: the program is portable, complex products absent there as well."""
    step, arguments = training_step(case)
    text = step.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert real_products(text) and complex_products(text) == []


SINGLE_TOL = 2e-4
"""Of float32: a residual of 1e-6 over the radius of 0.2, times the condition of the fixed point."""


@pytest.mark.parametrize("case", ["dense", "conv", "dense_asymmetric_nudge"])
def test_the_same_code_in_single_precision(case):
    """With 64-bit types off, everything is float32 and near the float64 gradient."""
    make, estimator, _ = CASES[case]
    estimator = eqx.tree_at(lambda e: e.relaxation, estimator, Picard(tol=1e-6, max_steps=300))
    network = make(jax.random.key(0))
    is_conv = isinstance(network, eqprop.ConvNetwork)
    model = eqprop.Model(network, eqprop.SoftmaxReadout(4 if is_conv else 3, 3, key=jax.random.key(1)))
    x = jax.random.normal(jax.random.key(3), (2, *(network.image_shape if is_conv else (6,))))
    _, double = estimate(estimator, model, x, jnp.asarray([0, 2]))
    with jax.enable_x64(False):
        single = lambda tree: jax.tree.map(
            lambda v: jnp.asarray(np.asarray(v, np.float32)) if eqx.is_array(v) else v, tree
        )
        stencil = eqprop.cauchy(0.2, 4)
        assert stencil.nodes.dtype == jnp.complex64
        estimator = eqx.tree_at(lambda e: e.stencil, estimator, stencil)
        model, x = single(model), single(x)
        free = eqx.filter_jit(
            eqx.filter_vmap(
                lambda x: Picard(tol=1e-6, max_steps=300)(
                    model.network.at(x).drift, model.network.at(x).initial_state()
                )
            )
        )(x)
        response = eqx.filter_jit(eqx.filter_vmap(lambda x, y, f: estimator.respond(model.at(x, y), f)))(
            x, jnp.asarray([0, 2]), free
        )

        def objective(model):
            surrogate = lambda x, y, r: estimator.surrogate(model.at(x, y), r)
            return jnp.mean(jax.vmap(surrogate)(x, jnp.asarray([0, 2]), response))

        grad = eqx.filter_jit(eqx.filter_grad(objective))(model)
    floats = [leaf for leaf in jax.tree.leaves((response, grad, free)) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    assert {leaf.dtype for leaf in floats} == {np.dtype("float32")}
    assert relative_error(grad, double) < SINGLE_TOL
