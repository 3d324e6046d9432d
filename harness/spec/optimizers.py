"""Optimisers of recipes: the keys that only some of them read, and where they work."""

from harness.errors import UserError

OWN_KEYS = {
    "sgd": ("momentum", "nesterov"),
    "dot": ("momentum", "momentum_delta"),
    "adamw": ("betas", "eps"),
    "lamb": ("betas", "eps"),
}


def refuse_shards(optimizer: str, zero_stage: int) -> None:
    """Refuse an optimiser that needs the norms of whole parameters where ZeRO leaves each process a part of them.

    Raises:
        UserError: it is one.
    """
    if optimizer == "lamb" and zero_stage:
        raise UserError(
            f"optimizer lamb: it needs the norms of whole parameters, which zero_stage {zero_stage} cuts into shards; "
            "use zero_stage 0, engine native, or optimizer adamw"
        )
