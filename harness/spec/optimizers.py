"""Optimisers of recipes: the keys that only some of them read, and where they work."""

from collections.abc import Mapping

from harness.errors import UserError

OWN_KEYS = {
    "sgd": ("momentum", "nesterov"),
    "dot": ("momentum", "momentum_delta"),
    "adamw": ("betas", "eps"),
    "lamb": ("betas", "eps"),
}


def check_deepspeed(optimizer: str, zero_stage: int) -> None:
    """Refuse an optimiser that engine deepspeed cannot run.

    Raises:
        UserError: it needs the norms of whole parameters, of which ZeRO leaves each process a part, or the gradients of
            two losses.
    """
    if optimizer == "dot":
        raise UserError(
            "optimizer dot: it needs the gradients of two losses apart, which engine deepspeed sums; use engine "
            "native, or another optimizer"
        )
    if optimizer == "lamb" and zero_stage:
        raise UserError(
            f"optimizer lamb: it needs the norms of whole parameters, which zero_stage {zero_stage} cuts into shards; "
            "use zero_stage 0, engine native, or optimizer adamw"
        )


def check_terms(optimizer: str, use: str, weights: Mapping[str, float]) -> None:
    """Check that a method has the loss terms that an optimiser needs.

    Raises:
        ValueError: it has not.
    """
    weighted = [term for term, weight in weights.items() if weight]
    if optimizer == "dot" and ("ce" not in weighted or len(weighted) == 1):
        terms = ", ".join(f"`{term}`" for term in weighted)
        raise ValueError(
            "optimizer dot keeps a momentum of the labels' loss and one of the distillation's: expected weights of "
            f"`ce` and of another term, found {use} with {terms} alone; state `optimizer: sgd` in its recipe"
        )
