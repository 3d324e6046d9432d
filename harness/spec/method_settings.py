"""Settings of methods: a sweep file's entry with its changes for a pair, checked against the method's description."""

from harness.errors import UserError, collected, raise_mistakes, unknown
from harness.spec import methods
from harness.spec.methods import MethodInfo
from harness.spec.schema import Method, Recipe
from harness.spec.science import MethodSettings
from harness.spec.search_space import search_mistakes
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
                    if source.hyper:
                        raise ValueError(unknown(f"hyper-parameter of {use}", key, source.hyper))
                    own = ": in a class of your own, they are the keyword-only arguments of `__init__`" * (":" in use)
                    raise ValueError(f"{use} has no hyper-parameters, found {key!r}{own}")
                params[key] = source.hyper[key].check(value)
        for term, weight in layer.weights.items():
            if term in weights:
                weights[term] = weight
            else:
                text = unknown(f"loss term of {use}", term, weights)
                mistakes.append(document.mistake((*path, "weights", term), text))
        mistakes += search_mistakes(layer.search, source, use, document, (*path, "search"))
    if not any(weights.values()):
        mistakes.append(document.mistake(at, "every loss term has weight 0: nothing would be trained"))
    raise_mistakes(mistakes)
    return source, MethodSettings(use, source.version, params, weights)


def with_views(recipe: Recipe, settings: MethodSettings, source: MethodInfo) -> Recipe:
    """Return a recipe with the further views that a method reads, and no others.

    Raises:
        ValueError: the recipe lacks one.
    """
    stated, read = recipe.views or {}, source.views_read(settings.params)
    if missing := [name for name in read if name not in stated]:
        example = f"views: {{{missing[0]}: {{augment: {{randaugment: {{}}}}}}}}"
        text = f"{settings.use} reads a view {missing[0]!r} of each image, which its recipe lacks; state {example}"
        if stated:
            text += f" (found {', '.join(map(repr, stated))})"
        if source.views_with:
            key, value = source.views_with
            text += f"; it reads none with another {key} than {str(value).lower() if value is True else value}"
        raise ValueError(text)
    return recipe.model_copy(update={"views": {name: stated[name] for name in read} or None})


def check_augmentation(recipe: Recipe, use: str, source: MethodInfo) -> None:
    """Check that a method can be trained on the images that a recipe makes.

    Raises:
        ValueError: it cannot.
    """
    mixing = [f"`{key}`" for key in ("mixup", "cutmix") if getattr(recipe, key)]
    if mixing and source.per_image:
        raise ValueError(
            f"{use} keeps something of each training image, which {' and '.join(mixing)} would mix with another's: "
            "expected 0 in its recipe"
        )
    if mixing and source.part_of_model:
        raise ValueError(
            f"{use} computes a cross-entropy of its own, which {' and '.join(mixing)} would not reach: expected 0 in "
            "its recipe"
        )
    several = f"{recipe.repeats} `repeats`" if recipe.repeats > 1 else "`views`" if recipe.views else ""
    if recipe.teacher_top_k and several:
        raise ValueError(
            f"`teacher_top_k` keeps the teacher's logits once for each image: expected it or {several}, found both"
        )
