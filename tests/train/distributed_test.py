"""``--distributed``: processes that a job scheduler has started find each other by what it tells them."""

import pytest

from tests.train import two_processes

MEET = """
import os, sys, threading
from rlx.train import processes

plan = processes.plan_of({"distributed": True, "start_timeout": "60", "heartbeat_timeout": "20"}, {})
with processes.started(plan) as group:
    import jax
    print(group.gather([group.index, jax.process_index(), jax.device_count()]), flush=True)
    if sys.argv[1] == str(group.index):
        os._exit(9)
    if sys.argv[1] != "nobody":
        threading.Event().wait(60)
"""


def slurm(index):
    own = {"SLURM_JOB_ID": "4242", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    return own | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}


def open_mpi(index):
    own = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2"}
    return own | {f"OMPI_COMM_WORLD_{name}": str(index) for name in ("RANK", "LOCAL_RANK")}


def meet(scheduler, goes="nobody"):
    port = {"JAX_COORDINATOR_PORT": str(two_processes.free_port())}
    return two_processes.wait(two_processes.start(["-c", MEET, goes], devices=2, told=scheduler, **port))


@pytest.mark.parametrize("scheduler", [slurm, open_mpi])
def test_the_processes_of_a_job_meet(scheduler):
    ended = meet(scheduler)
    assert [one.code for one in ended] == [0, 0], ended
    found = "[[0, 0, 4], [1, 1, 4]]"
    assert ended[0].out.splitlines()[-1] == found and found not in ended[1].out


def test_one_of_a_job_that_dies_ends_it():
    ended = meet(slurm, goes="1")
    assert [one.code for one in ended] == [1, 9], ended
    assert ended[0].err.splitlines()[-1] == (
        "error: process 1 of 2 has ended without a word; the same command for all processes goes on from the last "
        "checkpoint"
    )
