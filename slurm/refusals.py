"""Refusals of jobs by sbatch, and whether the jobs can be submitted later."""


class Refusal(Exception):
    """sbatch has refused jobs. SLURM's line of explanation is the last that it said, after the name of a limit."""

    def __init__(self, text: str) -> None:
        lines = [line.removeprefix("sbatch: error: ").strip() for line in text.strip().splitlines()]
        explanation = (lines or ["no reason given"])[-1].removeprefix("Batch job submission failed: ")
        is_policy = "accounting/QOS policy" in explanation
        self.limit = lines[-2] if is_policy and len(lines) > 1 and lines[-2].isalnum() else ""
        # Not, say, on their size. Old versions of SLURM do not name the limit.
        self.is_job_limit = is_policy and (not self.limit or "SubmitJob" in self.limit)
        # Other users' jobs count in it.
        self.is_shared = "Grp" in self.limit or "PerAccount" in self.limit
        super().__init__(f"{self.limit}: {explanation}" if self.limit else explanation)
