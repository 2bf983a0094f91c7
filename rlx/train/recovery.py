"""A run that goes on where it can, and where it cannot stops with one line: why, and where it goes on from."""

from __future__ import annotations

from collections.abc import Callable

from rlx.train import storage
from rlx.train.checkpoint import Damaged
from rlx.train.storage import StorageError
from rlx.train.trainer import Trainer


def carry_on(make: Callable[[], Trainer]) -> dict[str, float]:
    """Runs what is left of a run; a checkpoint that turns out to be damaged makes it go on from the one before.

    Args:
      make: a trainer that starts from the last good checkpoint; called anew after each damaged one.

    Returns:
      The final metrics.

    Raises:
      StorageError: the disk is full, read-only, gone ...
      UserError: as of :meth:`Trainer.run`, or no checkpoint is good.
    """
    while True:
        trainer = make()
        checkpoints = trainer.checkpoints
        try:
            return trainer.run()
        except Damaged as error:
            if error.path not in map(checkpoints.path, checkpoints.steps()):
                raise  # what a stage started from: there is no other of it
            checkpoints.set_aside(error)
        except (StorageError, OSError) as error:
            said = storage.reason(error)
            if not said:
                raise
            last, place = checkpoints.last, storage.named(error) or trainer.folder.path
            what = str(error) if isinstance(error, StorageError) else f"cannot use {place}: {said}."
            kept = "No checkpoint has been saved yet" if last is None else f"The last good checkpoint is {last.name}"
            raise StorageError(f"{what} {kept}; once that is mended, the same command goes on from there.") from error
