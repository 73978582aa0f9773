"""A census of phases: which networks settle, cycle or wander, by gain, angle and feedback strength, and which learn.

The networks are kept as a zoo of files, `outputs/phases/SCALE/NAME.npz`, each with what was measured in its header.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from matplotlib.figure import Figure

import eqprop as eq
import eqprop.data
from eqprop.run import tables
from eqprop.run.population import population_of
from eqprop.run.study import style
from eqprop.run.study.measured import Measured

SIZES = [64, 32, 32, 10]
GAINS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the kernels at the start, in units of LeCun's."""
ANGLES = (0.0, 45.0, 90.0, 135.0, 180.0)
"""Between feedback and the transpose of forward weights: 0 tied, 90 independent, 180 of opposite sign."""
FEEDBACK = (1.0, 0.5, 0.2)
"""`γ`."""
PHASES = ("settled", "slow", "cycling", "wandering", "diverged")
EPOCHS = 20
SCALES = {"quick": (1, 5), "cpu": (3, 10), "full": (5, 50)}
"""Networks of each kind, and images on which each is watched."""

FLOW = eq.Picard(tol=1e-4, damping=0.1, max_steps=1500)
"""The flow of the free phase in steps of a tenth of the leak's time constant."""
TRAINER = eq.Trainer(
    eq.Sweep(tol=1e-4, max_steps=200),
    eq.FiniteNudge(stencil=eq.centred(0.2), relaxation=eq.Sweep(tol=1.0, rtol=1e-2, max_steps=200), norm_bound=1.0),
    optax.adam(2e-3),
)


def measure(scale: str) -> Measured:
    """Phases, loss, alignment and spectrum of every network, as drawn and after training on digits."""
    seeds, images = SCALES[scale]
    digits = eqprop.data.digits()
    x, y = (jnp.asarray(v) for v in (digits.train.images.reshape(-1, 64) / 16.0, digits.train.labels))
    order = np.random.default_rng(0).permutation(len(x))
    held, used = order[:300], order[300:]
    watched = x[held[:images]], y[held[:images]]
    networks = []
    for feedback in FEEDBACK:
        kinds = list(product(GAINS, ANGLES, range(seeds)))
        drawn = population_of([made(gain, angle, feedback, seed) for gain, angle, seed in kinds])
        trained = learn(drawn, x[used], y[used])
        found = [looked(models, watched, (x[held], y[held])) for models in (drawn, trained)]
        for index, (gain, angle, seed) in enumerate(kinds):
            kind = {"gain": gain, "angle": angle, "feedback": feedback, "seed": seed}
            networks.append({**kind, "drawn": found[0][index], "trained": found[1][index]})
            keep(Path("outputs/phases") / scale, member(trained, index), networks[-1])
    return Measured({"images": images, "held": len(held), "seeds": seeds, "epochs": EPOCHS, "networks": networks})


def made(gain: float, angle: float, feedback: float, seed: int) -> eq.Model:
    """A network as it is drawn."""
    first, second = jax.random.split(jax.random.key(seed))
    settings: Any = {"angle": angle, "feedback_gain": feedback, "init_scale": gain, "activation": eq.tanh}
    return eq.Model(eq.DenseNetwork.chain(SIZES, **settings, key=first), eq.SoftmaxReadout(SIZES[-1], 10, key=second))


def member(models: eq.Model, index: int) -> eq.Model:
    """One of a population."""
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, models)


def learn(models: eq.Model, x: Array, y: Array, batch: int = 50) -> eq.Model:
    """The population after training by nudges alone; examples that do not settle are left out."""
    keys = jax.random.split(jax.random.key(1), jax.tree.leaves(models)[0].shape[0])
    state = eqx.filter_vmap(lambda model, key: TRAINER.init(model, key=key))(models, keys)
    lift = eqx.filter_vmap(TRAINER.step, in_axes=(eqx.if_array(0), None))
    arrays, rest = eqx.partition(state, eqx.is_array)

    def step(arrays: Any, picked: Array) -> tuple[Any, None]:
        after, _ = lift(eqx.combine(arrays, rest), (x[picked], y[picked]))
        return eqx.filter(after, eqx.is_array), None

    draws = [np.random.default_rng(epoch).permutation(len(x)) for epoch in range(EPOCHS)]
    picked = np.concatenate([order[: len(x) // batch * batch].reshape(-1, batch) for order in draws])
    return eqx.combine(jax.jit(lambda a, p: jax.lax.scan(step, a, p)[0])(arrays, picked), rest).model


def looked(models: eq.Model, watched: tuple[Array, Array], held: tuple[Array, Array]) -> list[dict[str, Any]]:
    """What each network of a population does. Its spectrum is that of the Jacobian of the drift at one image's last
    state, as pairs of real and imaginary parts."""
    found = jax.tree.map(np.asarray, look(models, watched, held))
    eigenvalues = np.linalg.eigvals(found.pop("jacobian").astype(float))
    spectra = np.stack([eigenvalues.real, eigenvalues.imag], axis=-1).round(4)
    numbers = [{name: float(values[i]) for name, values in found.items()} for i in range(len(spectra))]
    return [{**n, "spectrum": spectrum.tolist()} for n, spectrum in zip(numbers, spectra, strict=True)]


@eqx.filter_jit
def look(models: eq.Model, watched: tuple[Array, Array], held: tuple[Array, Array]) -> dict[str, Array]:
    """Shares of the phases, loss, accuracy, cosine and Jacobian of every network."""

    def one(model: eq.Model) -> dict[str, Array]:
        trajectory = eqx.filter_vmap(lambda image: eq.trace(model, image, FLOW))(watched[0])
        shares = {name: jnp.mean(trajectory.status == getattr(eq.STATUS, name)) for name in PHASES}
        scores, aligned = TRAINER.evaluate(model, held), TRAINER.alignment(model, watched, key=jax.random.key(0))
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0, -1], trajectory.states))
        field = model.network.at(watched[0][0])
        jacobian = jax.jacobian(lambda u: ravel_pytree(field.drift(unravel(u)))[0])(flat)
        measured = {name: scores[name] for name in ("loss", "accuracy", "unsettled_fraction")}
        return {**shares, **measured, "cosine_hidden": aligned["cosine_hidden"], "jacobian": jacobian}

    return eqx.filter_vmap(one)(models)


def keep(folder: Path, model: eq.Model, found: dict[str, Any]) -> None:
    """Add a trained network to the zoo, from which `eqprop.load` makes it again."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "gain-{gain:g}_angle-{angle:g}_feedback-{feedback:g}_seed-{seed}".format(**found)
    eq.save(folder / f"{name}.npz", model, found)


def phase(found: dict[str, Any]) -> str:
    """What a network does at most of the images."""
    return max(PHASES, key=lambda name: found[name])


def cells(data: dict[str, Any], feedback: float, stage: str, name: str) -> np.ndarray:
    """A quantity, averaged over seeds, by gain and angle; of those seeds that have it."""
    rows = [[[] for _ in ANGLES] for _ in GAINS]
    for each in data["networks"]:
        value = each[stage][name]
        if each["feedback"] == feedback and value is not None:
            rows[GAINS.index(each["gain"])][ANGLES.index(each["angle"])].append(value)
    return np.array([[np.mean(values) if values else np.nan for values in row] for row in rows])


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """Maps over gain and angle, a panel for each feedback strength."""
    made = {}
    for name in ("drawn", "trained", "accuracy", "cosine"):
        made[name], axes = style.canvas(len(FEEDBACK))
        for axis, feedback in zip(axes, FEEDBACK, strict=True):
            if name in ("drawn", "trained"):
                values = 100 * cells(data, feedback, name, "settled")
                words = [[_letter(data, gain, angle, feedback, name) for angle in ANGLES] for gain in GAINS]
            else:
                values = 100 * cells(data, feedback, "trained", {"cosine": "cosine_hidden"}.get(name, name))
                words = [[f"{value:.0f}".replace("-0", "0") for value in row] for row in values]
            _map(axis, values, words, f"γ = {feedback:g}")
    return made


def _letter(data: dict[str, Any], gain: float, angle: float, feedback: float, stage: str) -> str:
    """The first letters of the phases of a kind's networks, each once."""
    kind = {"gain": gain, "angle": angle, "feedback": feedback}
    same = [each for each in data["networks"] if kind.items() <= each.items()]
    return "".join(dict.fromkeys("–" if name == "slow" else name[0] for name in (phase(e[stage]) for e in same)))


def _map(axis: Any, values: np.ndarray, names: Sequence[Sequence[str]], title: str) -> None:
    axis.grid(visible=False)
    axis.imshow(values, vmin=0, vmax=100, cmap="viridis", origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if not value > 55 else "black"
        axis.text(column, row, names[row][column], ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(ANGLES)), [f"{angle:g}" for angle in ANGLES])
    axis.set_yticks(range(len(GAINS)), [f"{gain:g}" for gain in GAINS])
    style.frame(axis, "initial angle (degrees)", "initial gain", title)


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figures show."""
    of = f"n = {data['seeds']} networks of each kind"
    share = (
        "Share of images at which a network {} settles, from none (dark) to all (yellow), by initial gain and angle "
        "and by feedback strength. Letters are what it does at most images: s settles, – settles slowly, c cycles, "
        f"w wanders, d diverges; {of}, {data['images']} images each."
    )
    after = f"after {data['epochs']} epochs by nudges alone; {of}."
    return {
        "drawn": share.format("as drawn"),
        "trained": share.format("after training"),
        "accuracy": f"Accuracy (%) on {data['held']} digits held out {after}",
        "cosine": (
            f"Hidden cosine (%) of nudges to the true gradient {after} It is an average over images that settle, and 0 "
            "where none does."
        ),
    }


def answer(data: dict[str, Any]) -> str:
    """How many networks are in each phase, before and after, and what those of each phase learn."""
    rows = []
    for name in PHASES:
        begun = [each for each in data["networks"] if phase(each["drawn"]) == name]
        ended = [each for each in data["networks"] if phase(each["trained"]) == name]
        if begun or ended:
            cosines = [e["trained"]["cosine_hidden"] for e in begun if e["trained"]["cosine_hidden"] is not None]
            spread = [tables.spread([e["trained"]["accuracy"] for e in begun], 1, 100), tables.spread(cosines, 3)]
            abscissa = tables.spread([max(re for re, _ in e["drawn"]["spectrum"]) for e in begun], 2)
            rows.append([name, str(len(begun)), abscissa, str(len(ended)), *spread])
    head = ["phase as drawn", "networks", "spectral abscissa", "networks in it after training"]
    head += ["accuracy after training (%)", "hidden cosine after training"]
    weak = [_share(data, feedback) for feedback in FEEDBACK]
    settled = ", ".join(f"{share:.0%} at γ = {feedback:g}" for share, feedback in zip(weak, FEEDBACK, strict=True))
    return (
        f"Of the networks as drawn, most images settle in {settled}.\n\n{tables.markdown(head, rows)}\n\n"
        "Spread is one standard deviation over networks. The spectral abscissa is the largest real part of an "
        "eigenvalue of the Jacobian at one image's last state; above 0 the state is not stable."
    )


def _share(data: dict[str, Any], feedback: float) -> float:
    """Of the networks as drawn, those that settle or approach a fixed point at most images."""
    kinds = [phase(each["drawn"]) for each in data["networks"] if each["feedback"] == feedback]
    return float(np.mean([kind in ("settled", "slow") for kind in kinds]))
