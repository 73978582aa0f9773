"""Where the error of a gradient estimate comes from: finite relaxation, finite nudge, asymmetry."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Shaped

from eqprop import _tree, metrics
from eqprop._solution import RESULTS, Solution, worst
from eqprop._tree import AnyState
from eqprop.estimator.finite_nudge import FiniteNudge
from eqprop.estimator.linear_response import RecurrentBackprop, TangentResponse, relax_tangent
from eqprop.model import Example, Model
from eqprop.readout import Target
from eqprop.relaxation import AbstractRelaxation, until_rounding

LEAKAGE = 1e-2
"""The leakage above which an audit asks whether the network is analytic."""

INNER = 0.125
"""The circle of which leakage is measured, relative to the audited one. Beyond the radius of convergence every network
leaks; well inside it, none that is analytic."""


class Audit(eqx.Module):
    """The error of an estimate `δ`, per example, relative to the norm of the true error vector `δ_RBP`. With the
    parts as vectors,

        δ − δ_RBP = finite_relaxation + finite_nudge + asymmetry + closure.
    """

    finite_relaxation: Float[Array, "..."]
    """Of the estimate to the same stencil, relaxed until settled, from the settled fixed point."""
    finite_nudge: Float[Array, "..."]
    """Of the settled stencil to the tangent response `M⁻¹ g`."""
    asymmetry: Float[Array, "..."]
    """`m M⁻¹ (A m⁻¹ − m⁻¹ Aᵀ) M⁻ᵀ g`, the exact gap between the tangent response `m M⁻¹ m⁻¹ g` and the truth, `m` being
    the metric; `M⁻¹ (A − Aᵀ) M⁻ᵀ g` without one."""
    closure: Float[Array, "..."]
    """What the three parts leave over: the accuracy of this audit itself."""
    cosine: Float[Array, "..."]
    """Of the estimate to the truth, over all layers."""
    cosine_hidden: Float[Array, "..."]
    """The same over the hidden layers; over all layers if there are none."""
    leakage: Float[Array, "..."]
    """`(‖Im δ‖ + ‖c₋₁‖) / ‖Re δ‖` of a whole circle of an eighth of the radius, without its symmetry: what its sum has
    beside its real part, and what answers to the conjugate of the nudge. 0 for an analytic network that has settled;
    NaN for one that does not say it is analytic."""
    radius: Float[Array, "..."]
    """The radius of the audited circle."""
    convergence_radius: Float[Array, "..."]
    """Estimate of `R`, beyond which Cauchy fails, from the decay of the samples' Taylor coefficients; NaN for a
    network that is not analytic."""
    settled: Bool[Array, "..."]
    """Whether every relaxation of this audit settled; the numbers of other examples are worth nothing."""

    def warnings(self) -> list[str]:
        """What a reader of this audit should be told."""
        messages = []
        # Beyond R the samples no longer decay, and the estimate of R tends to the radius itself: hence the margin.
        beyond = self.settled & (self.convergence_radius < 1.2 * self.radius)
        if beyond.any():
            messages.append(
                f"The nudge of radius {float(self.radius.max()):.3g} reaches the estimated radius of convergence of "
                f"{float(beyond.mean()):.0%} of the examples (the smallest is "
                f"{float(self.convergence_radius[beyond].min()):.2g}): more points will not help there. "
                "Shrink the radius."
            )
        leaking = self.settled & (self.leakage > LEAKAGE)
        if leaking.any():
            messages.append(
                "A nudge on a circle leaks into what an analytic network has not, by up to "
                f"{float(self.leakage[leaking].max()):.2g} of the response. Some function of the network is not "
                "analytic, such as an absolute value, a comparison or a conjugate: say holomorphic=False and nudge at "
                "real points."
            )
        if not self.settled.all():
            messages.append(
                f"{float((~self.settled).mean()):.0%} of the examples did not settle in some phase of the audit. On a "
                "complex circle this happens beyond the radius of convergence: shrink the radius. Otherwise allow more "
                "steps."
            )
        return messages

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Median, 90 % quantile and worst over the settled examples, as Markdown."""
        rows = ["| quantity | median | 90 % | worst |", "|---|---|---|---|"]
        for name in ("finite_relaxation", "finite_nudge", "asymmetry", "closure", "leakage"):
            values = getattr(self, name)[self.settled]
            rows.append(f"| {name} | " + " | ".join(f"{_quantile(values, q):.3g}" for q in (0.5, 0.9, 1.0)) + " |")
        for name in ("cosine", "cosine_hidden", "convergence_radius"):
            values = getattr(self, name)[self.settled]
            rows.append(f"| {name} | " + " | ".join(f"{_quantile(values, q):.4g}" for q in (0.5, 0.1, 0.0)) + " |")
        return "\n".join(rows)


def audit(
    model: Model,
    x: Shaped[Array, "batch ..."],
    y: Array,
    *,
    estimator: FiniteNudge,
    relaxation: AbstractRelaxation,
    reference: AbstractRelaxation | None = None,
    num_points: int = 16,
) -> Audit:
    """Split the error of a gradient estimate by its causes, example by example.

    **Arguments:**

    - `model`, `x`, `y`: what to audit, on which batch.
    - `estimator`: the finite nudge under audit. Its norm bound is left out.
    - `relaxation`: of the free phase under audit.
    - `reference`: the relaxation that stands for "until settled"; by default damped Picard steps until nothing
        but rounding is left.
    - `num_points`: on the circle from which leakage and radius of convergence are estimated.

    **Returns:** an `Audit` with a leading batch axis. Compile the call, by `equinox.filter_jit`, to have it sooner;
    what would be warned of is then in `Audit.warnings`.

    **Warns:** if the stencil reaches the estimated radius of convergence of some example, or if a relaxation
    does not settle.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    report = eqx.filter_vmap(
        lambda x, y: _audit_one(model, x, y, estimator, relaxation, reference, num_points), in_axes=0
    )(x, y)
    if not isinstance(report.settled, Tracer):  # nobody to warn while tracing
        for message in report.warnings():
            warnings.warn(message, stacklevel=2)
    return report


def _audit_one(
    model: Model,
    x: Array,
    y: Target,
    estimator: FiniteNudge,
    relaxation: AbstractRelaxation,
    reference: AbstractRelaxation | None,
    num_points: int,
) -> Audit:
    example = model.at(x, y)
    field, settle = example.field, reference or until_rounding(relaxation)
    free = settle(field.drift, field.initial_state(), blocks=field.blocks)
    u = free.state
    s, to_rates = jax.linearize(field.rates, u)

    # The estimate as it is used, and the same with nothing left to relax.
    begun = relaxation(field.drift, field.initial_state(), blocks=field.blocks)
    estimate = estimator.estimate(example, begun).delta
    ideal = FiniteNudge(stencil=estimator.stencil, relaxation=settle).estimate(example, free)
    tangent = TangentResponse(relaxation=settle).estimate(example, free)
    true = RecurrentBackprop(relaxation=settle).estimate(example, free)

    # The truth, driven through the asymmetry, relaxed once more.
    forward, transposed = field.jacobian(s)
    driven = _tree.subtract(forward(example.out_of_scale(true.delta)), example.out_of_scale(transposed(true.delta)))
    gap = relax_tangent(settle, field.drift, u, driven, example.blocks)
    parts = {
        "finite_relaxation": _tree.subtract(estimate, ideal.delta),
        "finite_nudge": _tree.subtract(ideal.delta, tangent.delta),
        "asymmetry": example.in_scale(to_rates(gap.state)),
    }
    left = _tree.subtract(estimate, true.delta)
    for part in parts.values():
        left = _tree.subtract(left, part)

    radius = jnp.max(jnp.abs(estimator.stencil.nodes)).astype(jax.tree.leaves(u)[0].dtype)
    leakage = convergence_radius = jnp.full_like(radius, jnp.nan)
    results = [free.result, ideal.result, tangent.result, true.result, gap.result]
    if model.network.holomorphic:

        def laurent(radius: Array) -> tuple[AnyState, RESULTS]:
            circle = sample_circle(example, u, settle, radius, num_points)
            samples = jax.vmap(field.rates)(circle.state)
            return jax.tree.map(lambda v: jnp.fft.fft(v, axis=0) / num_points, samples), worst(circle.result)

        coefficients, result = jax.vmap(laurent)(radius * jnp.asarray([1.0, INNER], radius.dtype))
        results.append(worst(result))
        magnitudes = jax.vmap(jax.vmap(_tree.norm))(coefficients)
        convergence_radius = _convergence_radius(magnitudes[0], radius)
        delta = jax.tree.map(lambda c: c[1, 1], coefficients)
        imaginary, real = (_tree.norm(jax.tree.map(part, delta)) for part in (jnp.imag, jnp.real))
        leakage = (imaginary + magnitudes[1, -1]) / real

    scale = _tree.norm(true.delta)
    hidden = metrics.layer_cosines(estimate, true.delta, model.readout.layers)
    return Audit(
        **{name: _tree.norm(part) / scale for name, part in parts.items()},
        closure=_tree.norm(left) / scale,
        cosine=metrics.cosine(estimate, true.delta),
        cosine_hidden=hidden.get("hidden", metrics.cosine(estimate, true.delta)),
        leakage=leakage,
        radius=radius,
        convergence_radius=convergence_radius,
        settled=jnp.all(jnp.stack([result == RESULTS.successful for result in results])),
    )


def sample_circle(
    example: Example, u: AnyState, settle: AbstractRelaxation, radius: Array | float, num: int
) -> Solution:
    """The phases nudged at `num` points of the whole circle, from `r` on, in complex arithmetic throughout. Each is
    relaxed from `u` on its own."""
    start = _tree.to_complex(u)
    dtype = jax.tree.leaves(u)[0].dtype
    angles, radius = 2 * math.pi * jnp.arange(num, dtype=dtype) / num, jnp.asarray(radius, dtype)
    nodes = jax.lax.complex(radius * jnp.cos(angles), radius * jnp.sin(angles))
    return jax.vmap(lambda beta: settle(lambda u: example.drift(u, beta), start, blocks=example.blocks))(nodes)


def _convergence_radius(magnitudes: Float[Array, " points"], radius: Float[Array, ""]) -> Float[Array, ""]:
    """`R` from the magnitudes `‖cₙ rⁿ‖ ≈ C (r/R)ⁿ` of the Taylor coefficients: a least-squares slope over `1 ≤ n < N`
    where they stand clear of rounding."""
    order = jnp.arange(1, magnitudes.shape[0], dtype=magnitudes.dtype)
    floor = 100 * jnp.finfo(magnitudes.dtype).eps * magnitudes[0]
    clear = (magnitudes[1:] > floor).astype(magnitudes.dtype)
    # Only the leading run counts: past the first coefficient in the noise there is nothing more to learn.
    clear = jnp.cumprod(clear)
    logs = jnp.log(jnp.maximum(magnitudes[1:], floor))
    count = jnp.maximum(jnp.sum(clear), 1.0)
    centre = jnp.sum(clear * order) / count
    spread = jnp.sum(clear * (order - centre) ** 2)
    slope = jnp.sum(clear * (order - centre) * logs) / jnp.where(spread > 0, spread, 1.0)
    return jnp.where(spread > 0, radius * jnp.exp(-slope), jnp.inf)


def _quantile(values: Array, q: float) -> float:
    return float(jnp.quantile(values, q)) if values.size else math.nan
