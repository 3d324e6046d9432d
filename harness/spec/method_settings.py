"""Settings of methods: a sweep file's entry with its changes for a pair, checked against the method's description."""

from harness.errors import UserError, collected, raise_mistakes, unknown
from harness.spec import methods
from harness.spec.methods import MethodInfo
from harness.spec.schema import Method
from harness.spec.science import MethodSettings
from harness.spec.yamlfile import Document, KeyPath


def resolve(name: str, layers: dict[KeyPath, Method], document: Document) -> tuple[MethodInfo, MethodSettings]:
    """Return a method's description and settings. Later layers win; each is known by its place in the sweep file.

    Raises:
        UserError: there is no such method, hyper-parameter or loss term, or nothing would be trained.
    """
    at = next(iter(layers))
    use = next((layer.use for layer in reversed(layers.values()) if layer.use), name)
    with document.place(at):
        source = methods.describe_method(use)
    params = {k: h.default for k, h in source.hyper.items()}
    weights = dict(source.weights)
    mistakes: list[UserError] = []
    for path, layer in layers.items():
        for key, value in layer.params.items():
            with collected(mistakes), document.place((*path, "params", key)):
                if key not in source.hyper:
                    text = unknown(f"hyper-parameter of {use}", key, source.hyper)
                    own = "; they are the keyword-only arguments of its own `__init__`" * (not source.hyper)
                    raise ValueError(f"{text}{own}")
                params[key] = source.hyper[key].check(value)
        for term, weight in layer.weights.items():
            if term in weights:
                weights[term] = weight
            else:
                text = unknown(f"loss term of {use}", term, weights)
                mistakes.append(document.mistake((*path, "weights", term), text))
    if not any(weights.values()):
        mistakes.append(document.mistake(at, "every loss term has weight 0: nothing would be trained"))
    raise_mistakes(mistakes)
    return source, MethodSettings(use, source.version, params, weights)
