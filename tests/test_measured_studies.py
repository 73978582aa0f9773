"""Studies that look into networks: figures and sentences from small made data, closed forms, one study measured."""

import importlib
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import eqprop
from eqprop.run.compose import CONFIGS
from eqprop.run.population import population_of
from eqprop.run.record import to_json
from eqprop.run.study import style
from experiments.paper import bias_split, nudge_error, phases, relaxation_steps
from experiments.spice import compare
from experiments.substrate import low_bit, low_bit_training, oscillation, reading_report, readings, signatures, writes
from experiments.substrate.schemes import SCHEMES
from experiments.tasks import learning_bias, limit_cycles, training, turns
from runs import as_users_run

NAMES = (
    "nudge_error",
    "bias_split",
    "relaxation_steps",
    "device_readings",
    "oscillation",
    "writes",
    "spice",
    "phases",
    "learning_bias",
)
NAMES += ("tasks_in_turns", "low_bit", "signatures", "limit_cycles")


def falling(*shape: int) -> np.ndarray:
    """Errors that fall along the first axis and differ a little along the last."""
    first = np.geomspace(1.0, 1e-3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return first * np.linspace(0.9, 1.1, shape[-1]) * np.ones(shape)


def made_nudge_error() -> dict:
    radii = np.geomspace(0.02, 1.0, 4)
    by_order = [radii[:, None] ** points * np.linspace(0.9, 1.1, 5) for points in nudge_error.POINTS]
    by_order[0][0, 0] = math.nan
    floor = {name: np.full((4, 5), level) for name, level in zip(nudge_error.PARTS, (0.02, 0.002, 1e-4), strict=True)}
    return {
        "radii": radii,
        "points": nudge_error.POINTS,
        "images": 5,
        "errors": {"float64": by_order, "float32": by_order},
        "floor": {**floor, nudge_error.ROUNDING: by_order[-1]},
    }


def made_bias_split() -> dict:
    parts = dict(zip(bias_split.PARTS, (1.0, 0.1, 0.01), strict=True))
    small = dict(zip(bias_split.PARTS, (0.01, 0.2, 0.05), strict=True))
    runs = {}
    for label, sizes in (("without", parts), ("with", small)):
        found = {name: np.full((3, 4), size) for name, size in sizes.items()}
        found["cosine_hidden"] = np.full((3, 4), math.nan if label == "without" else 0.9)
        found["cosine_hidden"][:, 1:] = 0.5 if label == "without" else 0.9
        runs[label] = {"epochs": [0.0, 1.0, 2.0], **found}
    return {"runs": runs, "networks": 1, "images": 4, "tolerance": 1e-3}


def made_relaxation_steps() -> dict:
    steps = np.arange(relaxation_steps.LIMIT + 1)
    kinds = {}
    for name, rate in zip(relaxation_steps.KINDS, (0.95, 0.9, 0.8), strict=True):
        found = relaxation_steps.summary(np.stack([rate**steps, np.full(len(steps), 0.5), 0.7**steps]))
        kinds[name] = {quantity: [value, value] for quantity, value in found.items()}
    common = {"steps": relaxation_steps.STEPS, "tol": relaxation_steps.TOL, "limit": relaxation_steps.LIMIT}
    return {**common, "networks": 2, "images": 3, "kinds": kinds}


def made_readings() -> dict:
    betas, noises, bits = np.geomspace(0.002, 1.0, 6), readings.NOISES, (8, 10)
    powers = {label: scheme.order / (scheme.order + 1) for label, scheme in SCHEMES.items()}
    best = {label: noises[:, None] ** power * np.ones(3) for label, power in powers.items()}
    offsets = ("one-sided, a second array", reading_report.IN_TURN, reading_report.DRIFTING, "two points, one array")
    return {
        "networks": 1,
        "images": 3,
        "noise": {
            "betas": betas,
            "noises": noises,
            "shown": noises[readings.SHOWN],
            "curves": {label: falling(6, 3) for label in SCHEMES},
            "best": {"reading": best, "time": best},
        },
        "converters": {"bits": bits, "best": {by: {s: falling(2, 3) for s in SCHEMES} for by in ("one", "eight")}},
        "offsets": {"betas": betas, "offset": 1e-3, "curves": {name: falling(6, 3) for name in offsets}},
        "settling": {"times": (4.0, 8.0), "beta": 0.02, "errors": {"one-sided": falling(2, 3), "two": falling(2, 3)}},
    }


def made_oscillation() -> dict:
    labels = (oscillation.STATIC, "lock-in, K = 1", "lock-in, K = 3")
    sizes = {"white noise": (1.0, 2.0, 3.0), "1/f noise": (2.0, 1.0, 0.5)}
    curves = {
        kind: {label: size * falling(4, 5) for label, size in zip(labels, each, strict=True)}
        for kind, each in sizes.items()
    }
    betas = np.geomspace(0.01, 0.6, 4)
    return {"networks": 1, "images": 4, "betas": betas, "time": 960.0, "draws": 5, "curves": curves}


def made_learning_bias() -> dict:
    """Errors that are the offset over the strength where it does not cancel, and rounding elsewhere."""
    seeds, offsets = 2, np.array(learning_bias.OFFSETS)
    floored = np.array([[offsets / strength] * seeds for strength in learning_bias.STRENGTHS])
    runs = lambda scheme: floored if scheme in learning_bias.BIASED else np.full_like(floored, 1e-15)
    floors = {name: {scheme: runs(scheme) for scheme in task.rates} for name, task in learning_bias.TASKS.items()}
    same = {"offsets": learning_bias.OFFSETS, "strengths": learning_bias.STRENGTHS}
    return {**same, "seeds": seeds, "updates": 10, "floors": floors}


def made_limit_cycles() -> dict:
    """Orbits that grow with dwell, offset and rate, not closed in the lattice; nothing moves where offsets cancel."""
    dwells, systems = (1, 4, 16), ("pair", "lattice")
    rows = [*limit_cycles.OFFSETS, limit_cycles.OFFSETS[-1] / 2]
    span = np.array([[[offset * dwell for dwell in dwells] for offset in rows]] * 2)
    floor = np.array([[[offset] * 3 for offset in (*limit_cycles.OFFSETS, limit_cycles.OFFSETS[-1])]] * 2)
    orbits = {}
    for name in systems:
        biased = {"span": span, "closure": np.full_like(span, 1.0 if name == "lattice" else 1e-6)}
        biased |= {"combined": floor, "shown": floor, "waiting": span + floor}
        blind = {quantity: np.zeros_like(span) for quantity in limit_cycles.QUANTITIES}
        orbits[name] = {s: biased if s in learning_bias.BIASED else blind for s in limit_cycles.SCHEMES}
    common = {"seeds": 2, "dwells": dwells, "updates": dict.fromkeys(systems, 64), "offsets": limit_cycles.OFFSETS}
    paths = {"coupled": np.eye(2), "slow_lock_in": np.zeros((2, 2))}
    return {**common, "strength": limit_cycles.STRENGTH, "orbits": orbits, "paths": paths}


def made_writes() -> dict:
    walks = {}
    for decay in writes.DECAYS:
        form = writes.closed_form(decay)
        walks[f"{decay:g}"] = {"measured": [form, 1.01 * form], "closed form": form}
    return {"sigma": writes.SIGMA, "steps": writes.STEPS, "draws": 2, "pairs": 10, "walks": walks}


def made_spice() -> dict:
    deviations = {name: [0.0, 0.1 * limit] for name, limit in compare.TOLERANCES.items()}
    turns = {f"{beta:g}": falling(len(compare.HARMONICS), 2).T for beta in compare.OSCILLATION}
    common = {"simulator": "ngspice-0", "circuits": 2, "tolerances": compare.TOLERANCES}
    return {**common, "deviations": deviations, "orders": compare.HARMONICS, "harmonics": turns}


def made_phases() -> dict:
    networks = []
    for gain, angle, feedback, seed in itertools.product(phases.GAINS, phases.ANGLES, phases.FEEDBACK, (0, 1)):
        share = {name: float(name == ("settled" if gain < 4 else "cycling")) for name in phases.PHASES}
        cosine = 1 - angle / 180 if gain < 4 else math.nan
        found = {**share, "loss": gain, "accuracy": 1 / (1 + gain), "unsettled_fraction": share["cycling"]}
        found |= {"cosine_hidden": cosine, "spectrum": [[gain - 3.0, 0.0], [-1.0, gain]]}
        networks.append({"gain": gain, "angle": angle, "feedback": feedback, "seed": seed, "drawn": found})
        networks[-1]["trained"] = found
    return {"images": 5, "held": 300, "seeds": 2, "epochs": 20, "networks": networks}


def made_tasks_in_turns() -> dict:
    """Of earlier tasks nothing is left, or half of it, to which aligning adds a tenth."""
    left = {training.ALONE: 0.0, training.MEMORY: 0.5, training.ALIGNED: 0.5, training.AT_ONCE: 0.8}
    rows = {}
    for row, kept in left.items():
        before = np.full((1, 5), kept) if row == training.AT_ONCE else np.tril(np.full((5, 5), kept), -1) + np.eye(5)
        more = 0.1 * np.tril(np.ones((5, 5)), -1) if row == training.ALIGNED else 0.0
        run = {"before": before, "after": before + more, "factors": [0.9] * 4, "unsettled": 0.0}
        rows[row] = [run, run]
    found = {"epochs": 1, "images": 50, "tested": 10, "runs": dict.fromkeys(turns.TRAININGS, rows)}
    return {"seeds": 2, "kept": training.KEPT, "sets": {"Fashion-MNIST": found, "digits": found}}


def made_low_bit() -> dict:
    """Rounding after training costs a point more than training in place; frozen weights oscillate half as much."""
    accuracies = {low_bit.ROUNDED: 0.94, low_bit_training.FROZEN: 0.955}
    halved = (low_bit_training.FROZEN, low_bit_training.CONFIDENT)

    def run(row: str, seed: int) -> dict:
        share = 0.1 if row in halved else 0.2
        found = {"accuracy": accuracies.get(row, 0.95) + 0.01 * seed, "oscillating": [share, 0.5 * share]}
        return {**found, "frozen": 0.25 if row in halved else 0.0, "unsettled": 0.001 * seed}

    bits = (1, 2)
    rows = {r: {f"{b}": [run(r, seed) for seed in range(2)] for b in bits} for r in (low_bit.ROUNDED, *low_bit.ROWS)}
    plain = [run(low_bit.FLOAT, seed) for seed in range(2)]
    found = {"images": 50, "tested": 10, "epochs": 1, "bits": bits, "float": plain, "rows": rows}
    common = {"limit": low_bit.LIMIT, "window": 100, "margin": 0.01, "calm": 0.7}
    return {"seeds": 2, **common, "sets": {"digits": found, "Fashion-MNIST": found}}


def made_signatures() -> dict:
    """A signature that is worth four points to networks of the same initial weights, and costs as much elsewhere."""
    scales = np.array(signatures.SCALES)
    runs = []
    for seed in range(2):
        run = {}
        for network in signatures.NETWORKS:
            worth = -0.04 if network == signatures.OTHER else 0.04
            courses = {"signature": 0.7 + worth * scales, "random": 0.7 - 0.01 * scales}
            one = {"alone": 0.7, "tuned": 0.75 + 0.01 * seed, **courses, "cosine": 0.5}
            run[network] = [{**one, "ideal": {"alone": 0.9, "signature": 0.8}}] * 3
        runs.append(run)
    found = {"images": 50, "tested": 10, "epochs": 2, "runs": runs}
    common = {"sigmas": signatures.SIGMAS, "scales": signatures.SCALES, "chips": 32, "unseen": 20}
    return {"seeds": 2, **common, "sets": {"digits": found, "Fashion-MNIST": found}}


MADE = {
    "phases": (made_phases, ["60% at γ = 1", "| cycling | 60 |"]),
    "nudge_error": (made_nudge_error, ["| 8 | 8.0 |", "2 % with nudged phases to 1 %"]),
    "bias_split": (made_bias_split, ["Without homeostasis, the largest part in the end is the asymmetry, 1 of"]),
    "relaxation_steps": (made_relaxation_steps, ["33 %", "even-odd sweeps"]),
    "device_readings": (made_readings, ["| circle, N = 8 | 8 | 0.89 | 0.89 |", "| one-sided | 2 | 0.50 | 0.50 |"]),
    "oscillation": (
        made_oscillation,
        ["With white noise the best lock-in has 2 times", "With 1/f noise", "0.25 times"],
    ),
    "learning_bias": (made_learning_bias, ["to the power 1.00 ± 0.00", "| allostery | EP, lock-in | none | 1.0e-15 |"]),
    "limit_cycles": (
        made_limit_cycles,
        [
            "on one task to the power 1.00 ± 0.00, and the error",
            "along the solutions of all tasks (lattice, two tasks)",
            "settles: EP, centred and EP, slow lock-in.",
            f"| two resistors, two tasks | EP, one-sided |{4 * ' 1.00 ± 0.00 |'} 1e-06 |",
            "| lattice, two tasks | EP, centred | – | – | – | – | – |",
        ],
    ),
    "writes": (made_writes, ["within 1.0%"]),
    "spice": (made_spice, ["Every comparison is within its tolerance."]),
    "tasks_in_turns": (
        made_tasks_in_turns,
        [
            "20.0 ± 0.0 % with nothing else, 60.0 ± 0.0 % with a memory",
            "68.0 ± 0.0 % with a memory and aligned classes, 80.0 ± 0.0 % with all classes at once",
            "changes it by 8.00 ± 0.00 points",
            "| digits | RBP | one after another | 20.0 ± 0.0 | 100.0 ± 0.0 | 0.0 ± 0.0 | 100.0 ± 0.0 | 0.00 ± 0.00 |",
            "| digits | RBP | all at once | 80.0 ± 0.0 | – |",
            "| digits | RBP | 5 | 0.900 ± 0.000 | 50.0 ± 0.0 | 60.0 ± 0.0 | 100.0 ± 0.0 | 100.0 ± 0.0 |",
        ],
    ),
    "low_bit": (
        made_low_bit,
        [
            "On digits with 1 bit a device, training in place changes accuracy by 1.0 ± 0.0 points over rounding",
            "15.0 % of the weights oscillate, 15.0 % with a statistical scale, and 7.5 % where",
            "0.5 ± 0.0 where oscillating weights are frozen, and 0.0 ± 0.0 where confident ones are",
            "At most 0.10 % of the examples",
            "| digits | float | – | 95.5 ± 0.7 |",
            "| digits | rounded after training | 2 | 94.5 ± 0.7 |",
            "| Fashion-MNIST | confident weights frozen | 2 | 7.5 ± 0.0 | 5.0 ± 0.0 | 25.0 ± 0.0 |",
        ],
    ),
    "signatures": (
        made_signatures,
        [
            "On digits at σ = 1, tuning changes the accuracy of a network on unseen chips by 5.5 ± 0.7 points.",
            "the same initial weights by 4.0 ± 0.0 points, where tuning would by 5.5 ± 0.7",
            "another seed by -4.0 ± 0.0, where tuning would by 5.5 ± 0.7 and a random signature does by -1.0 ± 0.0",
            "| digits | 0.75 | another seed | 70.0 ± 0.0 | 66.0 ± 0.0 | 69.0 ± 0.0 | 75.5 ± 0.7 | 0.50 ± 0.00 |",
        ],
    ),
}
"""By study, a maker of data and what must stand in the answer."""


@pytest.mark.parametrize("name", NAMES)
def test_pages(name, tmp_path):
    """From data as they are read again, every figure is drawn and described, and the answer says what the data say."""
    settings = yaml.safe_load((CONFIGS / "study" / f"{name}.yaml").read_text())
    assert {"title", "question", "setting", "measure", "not_shown"} <= settings.keys()
    module = importlib.import_module(settings["measure"])
    make, words = MADE[name]
    data = json.loads(to_json(make()))
    with style.styled():
        figures = module.draw(data)
        for stem, figure in figures.items():
            figure.savefig(tmp_path / f"{stem}.png")
            assert len(figure.axes) <= 3, "too many panels for a page"
    captions = module.captions(data)
    assert captions.keys() == figures.keys()
    assert all(text.endswith(".") for text in captions.values())
    answer = module.answer(data)
    for word in words:
        assert word in answer


def test_a_miss_is_said():
    """A comparison beyond its tolerance is named, in the answer and not hidden by the median."""
    data = made_spice()
    data["deviations"][compare.GRADIENT] = [0.0, 1.0]
    assert f"Beyond tolerance: {compare.GRADIENT}." in compare.answer(data)


def test_walks():
    """Pairs of devices part as the closed form says, and the figure says how well."""
    data = writes.measure("quick").data
    for found in data["walks"].values():
        error = 1 / math.sqrt(2 * data["pairs"])  # of a standard deviation
        assert np.max(np.abs(np.asarray(found["measured"]) / found["closed form"] - 1)) < 5 * error


def test_summary_of_residuals():
    """One image reaches the tolerance at the second step, one never, one is lost; the median is then never."""
    best = np.full((3, relaxation_steps.LIMIT + 1), 1.0)
    best[0, 2:] = 0.0
    best[2] = math.nan
    found = relaxation_steps.summary(best)
    assert found["needed"] == math.inf
    np.testing.assert_allclose(found["above"][1:], 2 / 3)
    assert found["above"][0] == 1 and found["median"][-1] == 1.0 and found["99 % quantile"][-1] == math.inf


def test_best_strength():
    """The strength is that of the least median, level by level."""
    errors = np.asarray([[[1.0, 9.0, 1.0], [5.0, 5.0, 5.0]], [[2.0, 2.0, 2.0], [3.0, 4.0, 0.0]]])
    np.testing.assert_array_equal(readings.at_best(errors), [[1.0, 9.0, 1.0], [3.0, 4.0, 0.0]])


def test_exponents():
    """A power is found by its exponent."""
    noises = readings.NOISES
    assert reading_report.exponent(noises, noises[:, None] ** 0.8 * np.ones(3)) == pytest.approx(0.8)


def test_equal_time():
    """A scheme of the circuit's readings: complex states are two."""
    for label, scheme in SCHEMES.items():
        stencil = scheme.stencil(0.1)
        states = stencil.nodes.size * (2 if stencil.holomorphic else 1)
        assert scheme.readings == states + (label == "one-sided")


def test_a_network_of_the_census_and_its_file(tmp_path):
    """Tied at a small gain it settles, and its Jacobian there has the spectrum of dense algebra, which is real."""
    models = population_of([phases.made(0.5, 0.0, 1.0, seed) for seed in (0, 1)])
    x, y = jax.random.uniform(jax.random.key(0), (4, 64)), jnp.arange(4)
    found = phases.looked(models, (x[:2], y[:2]), (x, y))
    assert [phases.phase(each) for each in found] == ["settled", "settled"]
    model = phases.member(models, 1)
    assert isinstance(model.network, eqprop.DenseNetwork)
    u = eqprop.Picard(tol=1e-9, max_steps=2000)(model.network.at(x[0]).drift, model.network.at(x[0]).initial_state())
    slope, kernels = jax.tree.map(lambda v: 1 - jnp.tanh(v) ** 2, u.state), model.network.kernels
    jacobian = -np.eye(74)
    place = {"l1": slice(0, 32), "l2": slice(32, 64), "out": slice(64, 74)}
    for (a, b), kernel in kernels.items():
        if a != "in":
            jacobian[place[b], place[a]] = np.asarray(kernel.T * slope[a][None])
    spectrum = np.array(found[1]["spectrum"])
    np.testing.assert_allclose(np.sort(spectrum[:, 0]), np.sort(np.linalg.eigvals(jacobian).real), atol=2e-4)
    assert np.abs(spectrum[:, 1]).max() < 1e-4
    phases.keep(tmp_path, model, {"gain": 0.5, "angle": 0.0, "feedback": 1.0, "seed": 1, "trained": found[1]})
    (path,) = tmp_path.iterdir()
    assert eqprop.read_header(path)["trained"]["settled"] == 1.0
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), eqprop.load(path).network.kernels, kernels))


def test_new_classes_are_aligned_to_earlier_ones(getkey):
    """The weights of the third task, and no others, change by the factor that is told."""
    before = eqprop.SoftmaxReadout(5, 10, key=getkey())
    after, factor = training.aligned(before, 2)
    ratio = np.asarray(after.kernel) / np.asarray(before.kernel)
    np.testing.assert_allclose(ratio[:, 4:6], factor, rtol=1e-12)
    np.testing.assert_array_equal(np.delete(ratio, (4, 5), axis=1), 1.0)
    lengths = np.linalg.norm(after.kernel, axis=0)
    assert np.mean(lengths[4:6]) == pytest.approx(np.mean(lengths[:4]))


def test_tasks_in_turns(monkeypatch):
    """In a short training, what is learned last is known best, and only aligned classes change after a task."""
    monkeypatch.setattr(turns, "TRAININGS", {"RBP": turns.TRAININGS["RBP"]})
    with as_users_run():
        data, records = turns.measure("quick")
    rows = data["sets"]["digits"]["runs"]["RBP"]
    for row, (run,) in rows.items():
        assert run["after"].shape == (1 if row == training.AT_ONCE else 5, 5)
        assert np.array_equal(run["before"], run["after"]) or row == training.ALIGNED
        assert len(run["factors"]) == 4 * (row == training.ALIGNED)
    (alone,), (memory,) = rows[training.ALONE], rows[training.MEMORY]
    np.testing.assert_array_equal(alone["after"][0], memory["after"][0])  # there is nothing to remember yet
    assert alone["after"][-1, -1] > 0.8 > 0.5 > np.mean(alone["after"][-1, :-1])
    assert [record.label for record in records] == [f"digits, RBP, {row}" for row in training.ROWS]
