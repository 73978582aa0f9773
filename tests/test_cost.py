"""The cost of a device: each cause against its closed form, in NumPy; what is not known; the summary of a run."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop.circuit import ResistiveNetwork, settling
from eqprop.run.measures import MEASURES
from eqprop.run.study.records import Record
from eqprop.run.train import table
from eqprop.substrate import (
    ADC,
    ConstantStep,
    DeviceFlow,
    NudgeDAC,
    Quantised,
    SoftBounds,
    Substrate,
    TableConductance,
    TableStep,
    Technology,
    WriteNoise,
)
from experiments.substrate.pareto import captions, draw, front
from helpers import SETTLE, free_phase, problem, respond

TECHNOLOGY = Technology(
    volts=0.3,
    siemens=2e-6,
    farads=5e-14,
    adc_figure_of_merit=3e-15,
    adc_seconds=2e-7,
    dac_figure_of_merit=7e-15,
    dac_seconds=1e-8,
    dac_bits=6,
    pulse_joules=4e-12,
    pulse_seconds=5e-8,
    parallel_writes=8,
    amplifier_watts=1e-7,
)
TAU = 5e-14 / 2e-6
STEPS = 150
FLOW = eqprop.FixedSteps(num_steps=STEPS)
"""A device whose phases last 150 time constants."""
CENTRED = eqprop.FiniteNudge(stencil=eqprop.centred(0.01), relaxation=SETTLE)
NEURONS, INPUTS, READ, BATCH = 12, 6, 3, 3


def costed(
    estimator: eqprop.AbstractEstimator = CENTRED,
    *,
    name="asymmetric",
    homeostasis=None,
    technology=TECHNOLOGY,
    **parts,
):
    model, x, y = problem(name)
    device = Substrate(flow=FLOW, technology=technology, **parts)
    trainer = eqprop.Trainer(SETTLE, estimator, optax.sgd(0.1), homeostasis=homeostasis, keep_unsettled=True)
    compute = eqx.filter_jit(lambda model: device.cost(trainer, model, (x, y)))
    return compute(model)


def settled(name="asymmetric"):
    """Potentials and rates at the free fixed point, and the error vectors of a weak nudge, by example."""
    model, x, y = problem(name)
    free = eqx.filter_jit(
        eqx.filter_vmap(lambda x: SETTLE(model.network.at(x).drift, model.network.at(x).initial_state()))
    )(x)
    tangent = eqprop.TangentResponse(relaxation=SETTLE)
    delta = jax.vmap(lambda x, y, f: tangent.error(model.at(x, y), f).delta)(x, y, free)
    return free.state, jax.vmap(model.network.rates)(free.state), delta


def squares(tree) -> float:
    """Summed over neurons, a mean over the batch."""
    return sum(float(np.sum(np.asarray(leaf) ** 2)) for leaf in jax.tree.leaves(tree)) / BATCH


def power(total=np.abs, name="asymmetric") -> float:
    """`siemens volts² (Σ G s² + Σ u²)`, device by device."""
    model, x, _ = problem(name)
    u, s, _ = settled(name)
    senders = {**s, "in": np.asarray(x)}
    watts = squares(u)
    for edge, kernel in model.network.device_kernels().items():
        watts += float(np.sum(np.asarray(senders[edge[0]])[:, :, None] ** 2 * total(np.asarray(kernel)))) / BATCH
    kernel = np.asarray(model.readout.device_kernel())
    watts += float(np.sum(np.asarray(s["out"])[:, :, None] ** 2 * total(kernel))) / BATCH
    return 2e-6 * 0.3**2 * watts


def close(found, expected, rtol=1e-6):
    np.testing.assert_allclose(float(found), expected, rtol=rtol)


def test_an_inference():
    """A swing from rest to the fixed point and back, its time, and the converters of 6 inputs and 3 outputs."""
    found = costed(
        adc=ADC(bits=5, dither=0.5, samples=4), technology=dataclasses.replace(TECHNOLOGY, neurons_per_adc=3)
    )
    _, s, _ = settled()
    rest = float(problem("asymmetric").model.network.activation(jnp.zeros(())))
    joules, seconds = found.inference.joules, found.inference.seconds
    close(joules["swing"], 5e-14 * 0.3**2 * squares(jax.tree.map(lambda v: v - rest, s)))
    close(joules["conduction"], power() * STEPS * TAU)
    close(joules["amplifiers"], NEURONS * 1e-7 * STEPS * TAU)
    close(joules["converters"], READ * 4 * 3e-15 * 2**5 + INPUTS * 7e-15 * 2**6)
    close(seconds["settling"], STEPS * TAU)
    close(seconds["converters"], 4 * 3 * 2e-7 + 1e-8)
    close(found.inference.energy, sum(map(float, joules.values())))
    close(found.inference.time, sum(map(float, seconds.values())))
    assert found.reasons == () and "inference: " in found.describe()


@pytest.mark.parametrize(
    "stencil",
    [eqprop.one_sided(0.01), eqprop.centred(0.01), eqprop.chebyshev(0.01, 4), eqprop.cauchy(0.01, 4)],
    ids=["one-sided", "centred", "chebyshev", "circle"],
)
def test_a_training_example(stencil):
    """Nodes one after the other, each out by `β δ` and back; two quadratures on a circle."""
    found = costed(eqprop.FiniteNudge(stencil=stencil, relaxation=SETTLE), dac=NudgeDAC(bits=4)).training
    nodes, quadratures = np.asarray(stencil.nodes), 2 if stencil.holomorphic else 1
    count, strength = len(nodes), float(np.sum(np.abs(nodes) ** 2))
    free = costed(dac=NudgeDAC(bits=4)).inference
    _, _, delta = settled()
    close(found.joules["swing"] - free.joules["swing"], 5e-14 * 0.3**2 * strength * squares(delta), rtol=1e-2)
    close(found.joules["conduction"], power() * STEPS * (1 + count) * TAU)
    close(found.joules["amplifiers"], NEURONS * 1e-7 * STEPS * (1 + quadratures * count) * TAU)
    converted = NEURONS * (1 + quadratures * count) * 3e-15 * 2**8
    converted += INPUTS * 7e-15 * 2**6 + READ * quadratures * count * 7e-15 * 2**4
    close(found.joules["converters"], converted)
    close(found.seconds["settling"], STEPS * (1 + count) * TAU)
    close(found.seconds["converters"], (1 + count) * (2e-7 + 1e-8))
    assert set(found.joules) == {"swing", "conduction", "amplifiers", "converters", "writes"}


def test_an_oscillating_nudge():
    """No free phase; three turns of 60 time constants, each over `2 β δ`; readings take no time of their own."""
    estimator = eqprop.LockIn(beta=0.01, harmonics=3, warmup=1, cycles=2)
    found, still = costed(estimator).training, costed().inference
    _, _, delta = settled()
    close(found.joules["swing"] - still.joules["swing"], 5e-14 * 0.09 * 3 * 0.02**2 * squares(delta), rtol=3e-2)
    close(found.joules["conduction"], power() * 180 * TAU)
    converted = NEURONS * 32 * 3e-15 * 2**8 + INPUTS * 7e-15 * 2**6 + READ * 48 * 7e-15 * 2**6
    close(found.joules["converters"], converted)
    close(found.seconds["settling"], 180 * TAU)
    close(found.seconds["converters"], 2e-7 + 1e-8)


def test_asymmetric_nudges_need_more():
    """The currents of `A` and `Aᵀ`, two more amplifiers a neuron, and a free state that is held."""
    estimator = eqprop.AsymmetricNudge(stencil=eqprop.centred(0.01), relaxation=SETTLE)
    found, plain = costed(estimator).training, costed().training
    model, x, y = problem("asymmetric")
    true = respond(eqprop.RecurrentBackprop(relaxation=SETTLE), model, x, y, free_phase(model, x)).payload
    watts = 0.0
    for (a, b), kernel in model.network.device_kernels().items():
        if a != "in":
            g = np.abs(np.asarray(kernel))
            watts += float(np.sum(np.asarray(true[a])[:, :, None] ** 2 * g)) / BATCH
            watts += float(np.sum(np.asarray(true[b])[:, None, :] ** 2 * g)) / BATCH
    extra = 2e-6 * 0.3**2 * 1e-4 * watts * 2 * STEPS * TAU
    close(found.joules["conduction"] - plain.joules["conduction"], extra, rtol=2e-2)
    close(found.joules["amplifiers"], NEURONS * 1e-7 * STEPS * (1 + 3 * 2) * TAU)
    close(found.joules["converters"] - plain.joules["converters"], NEURONS * 7e-15 * 2**6)
    close(found.seconds["converters"] - plain.seconds["converters"], 1e-8)


def test_homeostasis():
    """Two products a probe, each a time constant, written and read at every neuron; or all weights once a batch."""
    probed = costed(homeostasis=eqprop.SkewHomeostasis(1.0, num_probes=2, share=0.5)).training
    products = 2 * 2 * 0.5
    expected = products * (power() + NEURONS * 1e-7) * TAU + products * NEURONS * (7e-15 * 2**6 + 3e-15 * 2**8)
    close(probed.joules["homeostasis"], expected)
    close(probed.seconds["homeostasis"], products * (TAU + 2e-7 + 1e-8))
    exact = costed(homeostasis=eqprop.ExactHomeostasis(1.0)).training
    weights = sum(w.size for w in problem("asymmetric").model.network.device_kernels().values())
    weights += problem("asymmetric").model.readout.device_kernel().size
    close(exact.joules["homeostasis"], weights / BATCH * 3e-15 * 2**8)
    close(exact.seconds["homeostasis"], weights / BATCH / NEURONS * 2e-7)


def test_writes():
    """Pulses of the update that the optimiser asks for; one a weight where writes are no pulses."""
    model, x, y = problem("asymmetric")
    device = Substrate(flow=FLOW)
    trainer = eqprop.Trainer(SETTLE, CENTRED, optax.sgd(0.1), keep_unsettled=True).on(device)
    gradient, _ = eqx.filter_jit(trainer.gradient)(model, (x, y), key=jax.random.key(0))
    kernels = [*gradient.network.device_kernels().values(), gradient.readout.device_kernel()]
    asked = 0.1 * np.concatenate([np.abs(np.asarray(k)).ravel() for k in kernels])
    rising = np.linspace(-1, 1, 41)
    every = [
        (ConstantStep(dw_min=1e-3), asked / 1e-3),
        (SoftBounds(dw_min=1e-3, max_pulses=1), np.minimum(asked / 1e-3, 1)),
        (TableStep(tuple(rising), tuple(rising[::-1])), asked / 0.05),
        (WriteNoise(), np.ones_like(asked)),
        (None, np.ones_like(asked)),
    ]
    for part, pulses in every:
        found = costed(write=part).training
        close(found.joules["writes"], pulses.sum() * 4e-12 / BATCH, rtol=1e-4)
        close(found.seconds["writes"], pulses.sum() * 5e-8 / 8 / BATCH, rtol=1e-4)


def test_the_optimiser_in_the_course_of_a_training():
    """Its state decides the pulses: momentum without a gradient still writes."""
    model, x, y = problem("asymmetric")
    device = Substrate(flow=FLOW, technology=TECHNOLOGY, write=ConstantStep(dw_min=1e-3))
    trainer = eqprop.Trainer(SETTLE, CENTRED, optax.sgd(0.1, momentum=0.9), keep_unsettled=True).on(device)
    state = trainer.init(model, key=jax.random.key(0))
    moved, _ = eqx.filter_jit(trainer.step)(state, (x, y))
    compute = eqx.filter_jit(lambda s: device.cost(trainer, model, (x, y), optimiser_state=s))
    before, after = compute(state.optimiser), compute(moved.optimiser)
    close(after.training.joules["writes"], 1.9 * float(before.training.joules["writes"]), rtol=1e-4)


def test_pairs_of_devices_conduct_more():
    """`G⁺ + G⁻` of the realised weights, which the leak of an off device adds to."""
    for part in (Quantised(bits=12, on_off_ratio=5.0, limit=4.0), TableConductance(np.linspace(1, 5, 4096), limit=4.0)):
        found = costed(weights=part)
        # Two devices at a fifth of Gmax, in units of weights.
        expected = power(lambda w: np.abs(w) + 2 * 4.0 * 0.2 / (1 - 0.2)) * STEPS * TAU
        close(found.inference.joules["conduction"], expected, rtol=1e-3)


def test_steps_count_as_time_constants():
    """Of what is a motion, `damping` a step; of what is none, nothing is known."""
    relaxation = eqprop.FixedSteps(num_steps=30)
    model, x, y = problem("asymmetric")
    device = Substrate(technology=dataclasses.replace(TECHNOLOGY, seconds=1e-6))

    def time(relaxation):
        trainer = eqprop.Trainer(
            relaxation, eqprop.FiniteNudge(stencil=eqprop.centred(0.01), relaxation=relaxation), optax.sgd(0.1)
        )
        return eqx.filter_jit(lambda m: device.cost(trainer, m, (x, y)))(model)

    close(time(relaxation).training.seconds["settling"], 90e-6)
    damped = eqprop.Picard(tol=0.0, rtol=0.0, max_steps=20, damping=0.5)
    found = time(dataclasses.replace(damped, tol=1e-30))
    assert float(found.inference.seconds["settling"]) <= 10e-6 * (1 + 1e-9)
    found = time(eqprop.Newton())
    assert np.isnan(float(found.inference.time)) and np.isnan(float(found.training.energy))
    assert len(found.reasons) == 1 and "Newton does not say how long" in found.reasons[0]


@pytest.mark.parametrize("kind", [eqprop.RecurrentBackprop, eqprop.TangentResponse])
def test_what_no_device_does_has_no_price(kind):
    found = costed(kind(relaxation=SETTLE))
    assert np.isnan(float(found.training.energy)) and np.isnan(float(found.training.time))
    assert np.isfinite(float(found.inference.energy)) and np.isfinite(float(found.inference.time))
    assert f"no device is known to do {kind.__name__}" in found.describe()


def test_a_network_whose_conduction_is_not_known():
    found = costed(name="conv_symmetric")
    assert np.isnan(float(found.inference.energy)) and np.isfinite(float(found.inference.time))
    assert any("conduction of ConvNetwork" in reason for reason in found.reasons)


def test_a_circuit_says_its_own_power():
    """Settled power over a long time is the integral along the flow; volts and siemens are the circuit's."""
    network = ResistiveNetwork((3, 5, 2), volts=2.0, key=jax.random.key(1))
    model, x = eqprop.Model(network, eqprop.SquaredError()), jnp.asarray([[0.8, -0.5, 0.3]])
    flow = DeviceFlow(settle=30.0, dt=0.02)
    device = Substrate(flow=flow, technology=TECHNOLOGY)
    trainer = eqprop.Trainer(flow, CENTRED, optax.sgd(0.1), keep_unsettled=True)
    y = jnp.asarray([[0.1, -0.2]])
    found = eqx.filter_jit(lambda m: device.cost(trainer, m, (x, y)))(model).inference
    path = settling(network, x[0], farads=5e-14, horizon=30.0, dt=0.01)
    close(found.seconds["settling"], float(path.seconds[-1]))
    last = jax.tree.map(lambda v: v[-1], path.state)
    close(found.joules["conduction"], float(network.power(last, x[0])) * 30 * 5e-14 / 1e-3, rtol=1e-5)
    close(found.joules["conduction"], float(path.joules[-1]), rtol=0.03)
    close(found.joules["swing"], 5e-14 * sum(float(v @ v) for v in last.values()), rtol=1e-5)


def test_energies_of_contrasts():
    """Nodes of a contrast are measured themselves: as far from the free state as those of an error vector."""
    contrast = costed(eqprop.ContrastiveHebbian(eqprop.centred(0.01), SETTLE), name="hopfield").training
    finite = costed(name="hopfield").training
    for cause, joules in finite.joules.items():
        close(contrast.joules[cause], float(joules), rtol=1e-3)


def test_what_is_refused():
    model, x, y = problem("asymmetric")
    trainer = eqprop.Trainer(SETTLE, CENTRED, optax.sgd(0.1))
    with pytest.raises(ValueError, match="no technology: give it technology=Technology"):
        Substrate().cost(trainer, model, (x, y))
    every: list[dict[str, Any]] = [{"volts": 0.0}, {"pulse_joules": -1.0}, {"adc_bits": 0}, {"parallel_writes": 0}]
    for wrong in [*every, {"seconds": 0.0}]:
        with pytest.raises(ValueError, match=f"Technology got {next(iter(wrong))}"):
            Technology(**wrong)


def test_the_table_of_a_run():
    summary = {
        "unsettled_fraction": 0.0, "test_unsettled_fraction": 0.0, "bounded_fraction": 0.0, "seconds": 1.0,
        "energy_inference_joules": 2.5e-9, "time_inference_seconds": 3e-6, "cost_reasons": ["no device does it"],
    }  # fmt: skip
    assert "inference on the device" in table(summary) and "2.5e-09 J, 3e-06 s" in table(summary)
    assert "no device does it" in table(summary) and "training example on the device" not in table(summary)
    assert {"energy_inference_joules", "time_training_seconds"} <= set(MEASURES)


def test_the_front_of_a_study():
    """The rows of which none other costs less or as much and reaches more; a figure of every row."""
    assert front([(1, 1), (2, 1), (1, 2), (3, 3), (4, 2.5)]) == [(1, 2), (3, 3)]
    summary = {"test_accuracy": 0.5, "energy_training_joules": 1e-9, "time_training_seconds": 1e-6}
    records = [Record(name, 0, {}, {}, [], summary) for name in ("circle", "centred")]
    records.append(Record("lock-in", 0, {}, {}, [], {"test_accuracy": 0.5}))  # whose costs are not known
    axis = draw(records)["pareto"].axes[0]
    assert [line.get_label() for line in axis.lines[:2]] == ["circle, N = 4, two quadratures", "centred"]
    np.testing.assert_allclose(np.asarray(axis.lines[0].get_xydata(), float), [[1.0, 50.0]])
    assert "n = 1 seed" in captions(records)["pareto"]
