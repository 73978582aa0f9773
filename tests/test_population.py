"""Populations of networks, each on a chip of its own: every member is the lone network on that chip."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from omegaconf import OmegaConf

import eqprop as eq
from eqprop.run.build import device_of
from eqprop.run.population import over_members, population_of
from eqprop.substrate import ADC, DeviceFlow, Mismatch, Substrate, TimeConstants, WriteNoise

RELAXATION = eq.Picard(tol=1e-12, damping=0.5, max_steps=500)
BATCH = jax.random.uniform(jax.random.key(1), (4, 3)), jnp.arange(4) % 2


def substrate(**parts):
    return Substrate(3, mismatch=Mismatch(0.3, structure="per_direction"), **parts)


def trainer(**parts):
    estimator = eq.FiniteNudge(stencil=eq.centred(0.2), relaxation=RELAXATION)
    return eq.Trainer(RELAXATION, estimator, optax.sgd(0.1), keep_unsettled=True).on(substrate(**parts))


def started(trainer, seed):
    key = jax.random.key(seed)
    model = eq.Model(eq.DenseNetwork.chain([3, 5, 2], angle=90.0, key=key), eq.SquaredError())
    return trainer.init(model, key=key)


@pytest.mark.parametrize(
    "parts",
    [
        {"adc": ADC(6), "write": WriteNoise(0.01)},
        {"flow": DeviceFlow(dynamics=eq.substrate.Dynamics(time_constants=TimeConstants(0.2)), settle=20.0)},
    ],
    ids=["readings and writes", "flow"],
)
def test_members_on_chips_of_their_own(parts):
    """Two steps of two members, whose seeds are 3 and 4, equal those of lone networks on the chips 3 and 4."""
    own, device = trainer(**parts), substrate(**parts)
    cfg = OmegaConf.create({"population": 2, "seed": 3, "substrate": {"chip": "member"}})
    step = eqx.filter_jit(over_members(cfg, own, eq.Trainer.step))
    state = population_of([started(own, seed) for seed in (3, 4)])
    state, _ = step(state, BATCH)
    state, metrics = step(state, BATCH)
    for index, chip in enumerate((3, 4)):
        lone = own.on(device.with_chip(chip))
        one = started(lone, chip)
        alone_step = eqx.filter_jit(lone.step)
        one, _ = alone_step(one, BATCH)
        one, alone = alone_step(one, BATCH)
        np.testing.assert_allclose(metrics["loss"][index], alone["loss"], rtol=1e-10)
        for a, b in zip(*(jax.tree.leaves(eqx.filter(s.model, eqx.is_array)) for s in (state, one)), strict=True):
            np.testing.assert_allclose(a[index], b, atol=1e-10)
    assert abs(float(metrics["loss"][0] - metrics["loss"][1])) > 1e-4


def test_the_number_of_a_chip():
    device = {"_target_": "eqprop.Substrate", "chip": "member"}
    made = device_of(OmegaConf.create({"seed": 7, "substrate": device}))
    assert isinstance(made, Substrate) and made.chip == 7
    for wrong in ("members", -1, 0.5):
        with pytest.raises(ValueError, match="expected a whole number of at least 0, or member"):
            device_of(OmegaConf.create({"seed": 7, "substrate": device | {"chip": wrong}}))
