"""Calls of reward functions that may fail for a while: again after a pause, with a bound on their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rlx.rollout.tasks.example import Example
from rlx.rollout.worker import Failure, Worker, raised


class Calls(NamedTuple):
    """How functions of a user's module are called.

    Attributes:
      retries: further calls after one that failed.
      pause_s: seconds before the first of them; doubled before each next one.
      timeout_s: seconds that a call may take, in a process of its own; None: in this process, for as long as it takes.
      stop: what fails in all calls ends the run; False: the response gets the reward 0.
    """

    retries: int = 2
    pause_s: float = 1.0
    timeout_s: float | None = None
    stop: bool = True


class Caller:
    """A function that is called again where it fails.

    Args:
      path: of the function, ``module:function``.
      function: what it stands for.
      options: keyword arguments of every call.
      calls: how often and how long.
    """

    def __init__(self, path: str, function: Callable[..., Any], options: Mapping[str, Any], calls: Calls):
        self.calls, self.function, self.options = calls, function, dict(options)
        self.worker = None if calls.timeout_s is None else Worker(path, options, calls.timeout_s)

    def __call__(self, response: Any, example: Example) -> float:
        """The function's answer.

        Raises:
          Failure: all calls have failed; says how the last one did.
        """
        problem, tries = "", self.calls.retries + 1
        for attempt in range(tries):
            if attempt:
                time.sleep(self.calls.pause_s * 2 ** (attempt - 1))
            try:
                if self.worker is not None:
                    return self.worker(response, example)
                return float(self.function(response, example, **self.options))
            except Failure as failure:
                problem = str(failure)
            except Exception as error:  # a user's function may raise anything
                problem = raised(error)
        raise Failure(f"{problem} (call {tries} of {tries})")
