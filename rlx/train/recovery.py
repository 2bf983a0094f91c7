"""A run that goes on where it can, and where it cannot stops with one line: why, and where it goes on from."""

from __future__ import annotations

from collections.abc import Callable

from rlx.train import processes, storage
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
            if error.path not in map(checkpoints.path, checkpoints.steps()) or processes.group().count > 1:
                raise  # what a stage started from, of which there is no other; or others have read it
            checkpoints.set_aside(error)
        except (StorageError, OSError) as error:
            known, said = isinstance(error, StorageError), storage.reason(error)
            if not (known or said):
                raise
            last, place = checkpoints.last, storage.named(error) or trainer.folder.path
            what = str(error) if known else f"cannot use {place}: {said}."
            where = "No checkpoint has been saved yet; once that is mended, the same command starts anew."
            if last is not None:
                where = (
                    f"The last good checkpoint is that of step {int(last.name)} ({last}); once that is mended, the "
                    "same command goes on from it."
                )
            raise StorageError(f"{what} {where}") from error
