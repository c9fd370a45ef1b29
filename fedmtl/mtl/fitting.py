"""Which levers fit which methods."""

from __future__ import annotations

from collections.abc import Sequence

from fedmtl.algorithms.base import Algorithm
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Layout
from fedmtl.mtl.losses.given import Uniform
from fedmtl.mtl.own_tasks import OwnTasks
from fedmtl.mtl.sampling import Sampler

OF_THE_TRUNK: dict[str, int | str] = {"evaluation.relations": 0, "evaluation.affinity": 0, "server.modulation": "none"}
"""Keys of a scenario that act on the trunk that clients share, and the value at which they do nothing."""


def unfit(method: Algorithm) -> str:
    """Why server.modulation cannot be used with a method; "" where it can."""
    own_server = type(method).server is not Algorithm.server
    if method.addressed or method.rows:
        return "the method's server treats every client's reply by itself, so that there is no mean to modulate"
    if own_server and not method.averages:
        return "the method's server does not say that it averages models, or changes of them (Algorithm.averages)"
    return "" if shares_trunk(method) else "the method shares no trunk"


def shares_trunk(method: Algorithm) -> bool:
    """Whether parameters of the trunk may cross the wire."""
    return "trunk.0" in Layout(frozenset(), frozenset(), ("adapter.0", "trunk.0", "head.0")).select(method.wire)


def check_own_tasks(method: Algorithm, own: OwnTasks, tasks: Sequence[Sequence[str]]) -> None:
    """Raises ScenarioError where a lever of a client's own tasks has nothing to act on.

    tasks: the names of the tasks that the clients of each group have, none where they have one that is not of a set.
    """
    several, set_of = max(len(names) for names in tasks), "tasks.objective of kind \"set\" gives them several"
    chosen = {"modulation": own.modulation is not None, "loss-weighting": own.weighting != Uniform(),
              "sampler": type(own.sampler).learn is not Sampler.learn}
    if chosen["modulation"] and several < 2:
        raise ScenarioError("training.modulation", f"clients have one task each, whose gradient conflicts with no other: {set_of}")
    if chosen["loss-weighting"] and not several:
        raise ScenarioError("training.loss-weighting", f"clients have one task each, with no other to be weighed against: {set_of}")
    for lever, asked in chosen.items():
        if asked and method.own_loss:
            raise ScenarioError(f"training.{lever}", "the method's clients do not minimise the sum of their tasks' losses")
    own.weighting.check([name for names in tasks for name in names])
    if own.modulation is not None:
        try:
            own.modulation.check(several)
        except ScenarioError as error:
            raise error.at("training.modulation") from error
