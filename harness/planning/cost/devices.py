"""Devices that the jobs of a plan train on, as far as they are known before a job runs."""

from collections.abc import Callable
from dataclasses import dataclass

from harness.hardware import cores, cpu_name, gpu_name, gpus, is_gpu
from harness.spec.science import Science


@dataclass(frozen=True)
class Device:
    """The device of one job, and the limits of a job on it."""

    gpu: bool
    hardware: str | None  # the GPU's or the processor's name; None: unknown before the job runs
    threads: int  # of each process
    processes: int
    units: float  # GPUs, or cores where there are none, that a job holds: its share of a node that jobs share
    packs_per_job: int | None = None  # as the cluster's profile states it
    time_limit_s: float | None = None
    jobs_per_node: int = 1  # that share a node, as one job of SLURM

    def is_like(self, hardware: str, processes: int) -> bool:
        """Return whether a record's hardware may be this device; threads may differ."""
        name, *_ = hardware.split(" MIG ")  # torch names the slice of a GPU, the driver the whole
        same_kind = self.gpu == is_gpu(hardware) and self.processes == processes
        return same_kind and self.hardware in (None, name)

    @property
    def unit(self) -> str:
        return unit_of(self.gpu)


def unit_of(gpu: bool) -> str:
    """Return the unit whose hours a job's time is counted in."""
    return "GPU" if gpu else "core"


DeviceOf = Callable[[Science], Device]  # a run's science -> the device that trains it


def devices(cluster: str, threads: int) -> DeviceOf:
    """Return the function that names a run's device. ``threads`` are those of a job on this machine.

    Raises:
        UserError: there is no such cluster profile.
    """
    if cluster == "local":
        gpu = bool(gpus())
        device = Device(gpu, gpu_name() if gpu else cpu_name(), threads, 1, 1 if gpu else threads)
        return lambda _: device
    from slurm import profiles

    profile = profiles.load_profile(cluster)

    def on_cluster(science: Science) -> Device:
        resources = profile.resources_for(science.student, science.teacher_model)
        gpus, threads = resources.nodes * resources.gpus_per_node, resources.cpus_per_task
        units = gpus / resources.jobs_per_node or resources.processes * threads
        limits = (resources.packs_per_job, 60.0 * resources.time_minutes, resources.jobs_per_node)
        return Device(gpus > 0, None, threads, resources.processes, units, *limits)

    return on_cluster


def threads_of_a_job(at_once: int) -> int:
    """Return the threads of each job when ``at_once`` jobs share this machine."""
    return max(1, cores() // at_once)
