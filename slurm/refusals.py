"""What sbatch says when it refuses jobs, and whether they can be submitted later."""


class JobLimit(Exception):
    """SLURM takes no more jobs of this user, account or QOS until some have ended."""


class Refusal:
    """What sbatch said: SLURM's line of explanation is the last, and the name of a limit stands before it."""

    def __init__(self, text: str) -> None:
        lines = [line.removeprefix("sbatch: error: ").strip() for line in text.strip().splitlines()]
        explanation = (lines or ["no reason given"])[-1].removeprefix("Batch job submission failed: ")
        is_policy = "accounting/QOS policy" in explanation
        self.limit = lines[-2] if is_policy and len(lines) > 1 and lines[-2].isalnum() else ""
        self.cause = f"{self.limit}: {explanation}" if self.limit else explanation
        # Not, say, on their size. Old versions of SLURM do not name the limit.
        self.is_job_limit = is_policy and (not self.limit or "SubmitJob" in self.limit)
        # Other users' jobs count in it.
        self.is_shared = "Grp" in self.limit or "PerAccount" in self.limit
