"""Even-odd block sweeps: each half of the layers sees the other half already updated."""

import jax

from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractDamped, Iterate


class Sweep(AbstractDamped):
    """One step updates the even layers, then the odd ones from the updated even ones:

        u_even ← u_even + damping · F_even(u),      u_odd ← u_odd + damping · F_odd(u).

    Layers are numbered in the order of the state's leaves; for dictionaries that is the sorted order of their
    names, as in l1, l2, out. On a chain the two halves do not interact within themselves, and a sweep settles in
    about half the steps of a synchronous relaxation, without its cycles of period two. In each half the unused
    part of the drift is removed by the compiler, so that a sweep costs one and a half evaluations of it.
    """

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 1.0

    def propose(self, drift: Drift, iterate: Iterate, memory: None) -> tuple[AnyState, None]:
        halfway = self._update(iterate.u, iterate.drift, parity=0)
        return self._update(halfway, drift(halfway), parity=1), None

    def _update(self, u: AnyState, f: AnyState, parity: int) -> AnyState:
        leaves, structure = jax.tree.flatten(u)
        updated = [
            leaf + self.damping * change if index % 2 == parity else leaf
            for index, (leaf, change) in enumerate(zip(leaves, jax.tree.leaves(f), strict=True))
        ]
        return jax.tree.unflatten(structure, updated)
