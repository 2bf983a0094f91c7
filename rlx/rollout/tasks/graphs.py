"""Small directed graphs without cycles: find a path from one node to another. There may be many right ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from rlx.errors import UserError
from rlx.rollout.tasks.example import Example, draw

NODES = "abcdefghijklmnopqrstuvwxyz"
Edges = Mapping[str, Sequence[str]]


def graphpath(
    seed: int,
    size: int,
    *,
    split: str = "train",
    held_out: float = 0.1,
    nodes: int = 12,
    degree: float = 2.0,
    shortest: int = 2,
    longest: int = 5,
) -> list[Example]:
    """A graph as a list of edges, a source and a target; the answer is the nodes of a path.

    Args:
        seed: of the draws.
        size: how many distinct prompts.
        split: ``train`` or ``test``.
        held_out: share of the prompts in the test split.
        nodes: in a graph, named by letters; 2 to 26.
        degree: edges out of a node, on average.
        shortest: fewest edges of the shortest path: how hard a prompt is.
        longest: most edges of it.

    Returns:
        Examples whose ``answer`` is a shortest path; ``info`` has ``edges`` (node to its followers), ``source``,
        ``target`` and ``distance``.

    Raises:
        UserError: numbers that no graph can have, or fewer such graphs than asked for.

    >>> example = graphpath(0, 1, nodes=6, degree=1.0)[0]
    >>> example.prompt, example.answer
    ('a>df c>bef e>abd f>b c:d=', 'ced')
    """
    if not 2 <= nodes <= len(NODES) or not degree > 0 or not 1 <= shortest <= longest < nodes:
        raise UserError(
            f"graphpath needs 2 <= nodes={nodes} <= {len(NODES)}, degree={degree} above 0 and "
            f"1 <= shortest={shortest} <= longest={longest} < nodes."
        )

    def make(generator: np.random.Generator) -> Example:
        edges = _graph(generator, nodes, degree)
        far = [
            (source, path)
            for source in edges
            for path in shortest_paths(edges, source).values()
            if shortest <= len(path) - 1 <= longest
        ]
        if not far:
            return Example("", "")
        source, path = far[int(generator.integers(len(far)))]
        shown = " ".join(f"{node}>{''.join(after)}" for node, after in edges.items() if after)
        info = {"edges": edges, "source": source, "target": path[-1], "distance": len(path) - 1}
        return Example(f"{shown} {source}:{path[-1]}=", path, info)

    def real(generator: np.random.Generator) -> Example:
        for _ in range(1000):
            example = make(generator)
            if example.prompt:
                return example
        raise UserError(f"1000 graphs of {nodes} nodes and degree={degree} had no path of {shortest} to {longest}.")

    return draw(real, seed, size, split=split, held_out=held_out)


def _graph(generator: np.random.Generator, nodes: int, degree: float) -> dict[str, str]:
    """Followers of each node; a random order of the nodes is respected, so there are no cycles."""
    order = generator.permutation(nodes)
    linked = np.triu(generator.random((nodes, nodes)) < 2 * degree / (nodes - 1), 1)
    edges = {NODES[node]: "" for node in range(nodes)}
    for i, j in zip(*np.nonzero(linked), strict=True):
        edges[NODES[order[i]]] += NODES[order[j]]
    return {node: "".join(sorted(after)) for node, after in edges.items()}


def shortest_paths(edges: Edges, source: str) -> dict[str, str]:
    """Returns a shortest path from ``source`` to each node that can be reached, as its nodes.

    >>> shortest_paths({"a": "bc", "b": "d", "c": "d", "d": ""}, "a")
    {'a': 'a', 'b': 'ab', 'c': 'ac', 'd': 'abd'}
    """
    paths, queue = {source: source}, [source]
    for node in queue:
        for after in edges.get(node, ()):
            if after not in paths:
                paths[after] = paths[node] + after
                queue.append(after)
    return paths


def is_path(text: str, edges: Edges, source: str, target: str) -> bool:
    """Returns whether the letters of a text are the nodes of a path; spaces, commas, ``-`` and ``>`` do not count.

    >>> is_path("a > b > d", {"a": "bc", "b": "d"}, "a", "d"), is_path("ad", {"a": "bc", "b": "d"}, "a", "d")
    (True, False)
    """
    nodes = [letter for letter in text if letter not in " ,->\n"]
    ends = len(nodes) > 1 and nodes[0] == source and nodes[-1] == target
    return ends and all(after in edges.get(node, ()) for node, after in zip(nodes, nodes[1:], strict=False))
