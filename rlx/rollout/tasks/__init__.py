"""Tasks with verifiable answers: ``make({"name": "modadd"}, seed=0, size=64)`` gives their examples.

A task is a function ``(seed, size, **options) -> list[Example]``; equal arguments give equal examples, and no prompt is
in both splits. A user's own is named by its import path, ``"package.module:function"``.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlx.errors import UserError
from rlx.rollout.imports import by_name, check_options
from rlx.rollout.tasks.example import Example
from rlx.rollout.tasks.files import gsm8k, math
from rlx.rollout.tasks.graphs import graphpath
from rlx.rollout.tasks.sentiment import toysentiment
from rlx.rollout.tasks.sums import calculator, countdown, modadd

__all__ = ["Example", "TASKS", "make", "records"]

TASKS: dict[str, Callable[..., list[Example]]] = {
    "modadd": modadd,
    "countdown": countdown,
    "graphpath": graphpath,
    "toysentiment": toysentiment,
    "calculator": calculator,
    "gsm8k": gsm8k,
    "math": math,
}


def make(config: Mapping[str, Any], *, seed: int | None = 0, size: int | None = None) -> list[Example]:
    """Returns the examples of a task.

    Args:
        config: ``name`` (of ``TASKS``, or an import path), and options of that task.
        seed: of the draws or the order.
        size: how many; None for all of a task that has an end.

    Raises:
        UserError: an unknown name or option, with close matches, or what the task itself says.

    >>> make({"name": "modadd", "split": "test"}, seed=3, size=1)
    [Example(prompt='00+40=', answer='40', info={})]
    >>> make({"name": "modad"})
    Traceback (most recent call last):
    rlx.errors.UserError: unknown task 'modad'; tasks are ['modadd', 'countdown', 'graphpath', 'toysentiment',
    'calculator', 'gsm8k', 'math'] or 'module:function'. Did you mean 'modadd'?
    """
    options = dict(config)
    name = options.pop("name", None)
    task = by_name(name, TASKS, "task")
    check_options(task, {"seed": seed, "size": size, **options}, f"task {name!r}")
    for key, value in (("seed", seed), ("size", size)):
        if value is None and inspect.signature(task).parameters[key].default is not None:
            raise UserError(f"task {name!r} makes as many examples as are asked for: set {key} to a number.")
    return task(seed=seed, size=size, **options)


def records(examples: Iterable[Example]) -> list[dict[str, str]]:
    """Returns examples as the rows that a first, supervised stage reads: the solution where there is one.

    >>> records([Example("1+1=", "2"), Example("Why?", "3", {"solution": "Because. #### 3"})])
    [{'prompt': '1+1=', 'response': '2'}, {'prompt': 'Why?', 'response': 'Because. #### 3'}]
    """
    return [{"prompt": one.prompt, "response": str(one.info.get("solution", one.answer))} for one in examples]
