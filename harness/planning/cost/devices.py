"""What each job of a plan trains on, as far as it is known before the job runs."""

from collections.abc import Callable
from dataclasses import dataclass

from harness.hardware import cores, cpu_name, gpu_name, gpus, is_gpu
from harness.spec.science import Science


@dataclass(frozen=True)
class Device:
    """What one job trains on."""

    gpu: bool
    hardware: str | None  # the GPU's or the processor's name; None: not known before the job runs
    threads: int  # of each process
    processes: int
    units: int  # GPUs, or cores where there are none, that a job holds

    def is_like(self, hardware: str, processes: int) -> bool:
        """Whether this may be what ran there, but perhaps with other threads."""
        name, *_ = hardware.split(" MIG ")  # torch names the slice of a GPU, the driver the whole
        alike = self.gpu == is_gpu(hardware) and self.processes == processes
        return alike and self.hardware in (None, name)

    @property
    def unit(self) -> str:
        return unit_of(self.gpu)


def unit_of(gpu: bool) -> str:
    """What a job's time is counted in hours of."""
    return "GPU" if gpu else "core"


DeviceOf = Callable[[Science], Device]  # of a run's science: what trains it


def devices(cluster: str, threads: int) -> DeviceOf:
    """``threads``: of a job on this machine.

    Raises:
        UserError: there is no such cluster profile.
    """
    if cluster == "local":
        here = this_machine(threads)
        return lambda _: here
    from slurm import profiles

    profile = profiles.load_profile(cluster)

    def on_cluster(science: Science) -> Device:
        asked = profile.resources_for(science.student, science.teacher_model)
        gpus, threads = asked.nodes * asked.gpus_per_node, asked.cpus_per_task
        return Device(gpus > 0, None, threads, asked.processes, gpus or asked.processes * threads)

    return on_cluster


def this_machine(threads: int) -> Device:
    """What a job here has."""
    if gpus():
        return Device(True, gpu_name(), threads, 1, 1)
    return Device(False, cpu_name(), threads, 1, threads)


def threads_of_a_job(at_once: int) -> int:
    """Threads of each of so many jobs on this machine."""
    return max(1, cores() // at_once)
