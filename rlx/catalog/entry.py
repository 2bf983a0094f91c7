"""What the catalogue knows of a method."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rlx.method import Coupled, Method, arrays_of


class Entry(NamedTuple):
    """What the catalogue knows of a method.

    Attributes:
      function: the pure function.
      kind: ``loss``, ``advantage``, ``weights``, ``statistic``, ``solver`` or ``host``.
      paper: arXiv id or title.
      provenance: what the vectors were produced by: ``official code``, ``peer library`` or ``equation``.
      equation: one line.
      coupling: ``example``, ``group`` or ``batch``.
      preset: keywords that the name fixes.
      data: the kind of examples a loss trains on: ``pairs``, ``lists``, ``unpaired`` or ``sft`` (single responses).
      coupled: keyword of the function -> what computes it from the global batch (:class:`rlx.method.Coupled`).
      arrays: preset -> the arrays that it reads, where these follow from the preset (:mod:`rlx.recipe`).
      requires: keyword of the function -> the optional array that it needs once the keyword is not 0 or None.
      method: builds the :class:`~rlx.method.Method` of a name with parameters or state of its own.
      aliases: library -> the name there.
      vectors: ids of the vector files that check it; the name itself by default.
      exempt: property of ``tests/table_test.py`` -> why it cannot hold.
    """

    function: Callable[..., Any]
    kind: str
    paper: str
    provenance: str
    equation: str
    coupling: str = "example"
    data: str = "pairs"
    preset: Mapping[str, Any] = {}
    coupled: Mapping[str, Coupled] = {}
    arrays: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    requires: Mapping[str, str] = {}
    method: Callable[..., Method] | None = None
    aliases: Mapping[str, str] = {}
    vectors: tuple[str, ...] = ()
    exempt: Mapping[str, str] = {}

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the arrays it reads."""
        return arrays_of(self.function)[0] if self.arrays is None else self.arrays(self.preset)

    @property
    def call(self) -> Callable[..., Any]:
        """The function with the preset of the name filled in: what ``rlx.<name>`` is."""
        return functools.partial(self.function, **self.preset) if self.preset else self.function
