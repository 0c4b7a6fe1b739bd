"""The suites of LIBERO and the protocol their results are published with."""

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite of tasks.

    Attributes:
        benchmark: LIBERO's name of it.
        tasks: how many tasks it has.
        max_steps: control steps after which an episode has failed; longest demonstration plus a margin.
    """

    benchmark: str
    tasks: int
    max_steps: int


SUITES: Final = {
    "spatial": Suite(benchmark="libero_spatial", tasks=10, max_steps=220),
    "object": Suite(benchmark="libero_object", tasks=10, max_steps=280),
    "goal": Suite(benchmark="libero_goal", tasks=10, max_steps=300),
    "10": Suite(benchmark="libero_10", tasks=10, max_steps=520),
    "90": Suite(benchmark="libero_90", tasks=90, max_steps=400),
}

SETTLING_STEPS: Final = 10
"""Steps with the gripper open and nothing else, while the objects fall into place."""

REPLAN_STEPS: Final = 5
"""Steps of a chunk that are executed before the next request."""

CONTROL_HZ: Final = 20.0


def find_suite(name: str) -> Suite:
    """The suite of this name; `libero_` in front is accepted.

    Raises:
        ValueError: there is no such suite; names those there are.
    """
    suite = SUITES.get(name.removeprefix("libero_"))
    if suite is None:
        raise ValueError(f"There is no LIBERO suite {name!r}; choose one of {', '.join(SUITES)}.")
    return suite
