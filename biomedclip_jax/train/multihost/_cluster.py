"""Which processes a run has, and which of them this one is: from JAX's variables, Slurm, GKE, a TPU pod or Open MPI.

Uses JAX's private `jax._src.clusters` (tried with JAX 0.10.2 and 0.12.0).
"""

import os
from dataclasses import dataclass

from biomedclip_jax.errors import UserError, first_line

_CLUSTER_HINTS = ("SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE", "JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES")


@dataclass(frozen=True)
class Cluster:
    """The processes of the run, as this process was told of them: `address` is process 0's, as host:port."""

    address: str
    count: int
    process: int
    local_device_ids: list[int] | None


def find_cluster(timeout_seconds: float) -> Cluster | None:
    """None for a run of one process. Asks no server and takes no time where nothing hints at others."""
    number, total = os.environ.get("JAX_PROCESS_ID"), os.environ.get("JAX_NUM_PROCESSES")
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if (number is None) != (total is None):
        raise UserError("JAX_PROCESS_ID and JAX_NUM_PROCESSES: only one of them is set; set both, or neither")
    if number is not None and total is not None:
        if not (number.isdecimal() and total.isdecimal() and int(number) < int(total)):
            raise UserError(
                f"JAX_PROCESS_ID={number}, JAX_NUM_PROCESSES={total}: expected 0 <= JAX_PROCESS_ID < JAX_NUM_PROCESSES"
            )
        if int(total) == 1:
            return None
        if address is None or not address.rpartition(":")[2].isdecimal():
            raise UserError(
                f"JAX_COORDINATOR_ADDRESS={address}: expected host:port, where process 0 runs and a free port there"
            )
        return Cluster(address, int(total), int(number), None)  # JAX reads JAX_LOCAL_DEVICE_IDS by itself
    found = _detect(timeout_seconds)
    if found is None and address is not None:
        raise UserError(
            "JAX_COORDINATOR_ADDRESS is set, but this is no Slurm step, GKE job or TPU pod; "
            "set JAX_NUM_PROCESSES and JAX_PROCESS_ID, too, or unset it"
        )
    return found


def _detect(timeout_seconds: float) -> Cluster | None:
    """What JAX finds out about a cluster around us."""
    from jax._src import cloud_tpu_init, clusters

    # a pod of Kubernetes that is no job, such as a notebook, or a shell on a Slurm node is no cluster
    if not cloud_tpu_init.running_in_cloud_tpu_vm and not any(hint in os.environ for hint in _CLUSTER_HINTS):
        return None
    try:
        address, total, process, devices = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, int(timeout_seconds)
        )
    except Exception as error:  # of whichever library the cluster's own interface comes with
        raise UserError(
            f"the cluster around this process cannot be read ({first_line(error)}); "
            "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    if total is None or process is None or address is None:
        if "JOB_COMPLETION_INDEX" in os.environ:
            raise UserError(
                "this is an indexed job of Kubernetes, whose size cannot be read without the package `kubernetes`: "
                "install jax[k8s], or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
            )
        return None
    if total == 1:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if devices is not None and visible and "," not in visible:
        devices = [0]  # srun --gpus-per-task has given this process a GPU of its own: it is the first that it sees
    return Cluster(address, total, process, None if devices is None else list(devices))
