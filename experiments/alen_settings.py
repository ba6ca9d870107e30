"""Settings of every method on every data set of `experiments.alen`, chosen on validation parts."""

from typing import Any


def of(dataset: str, method: str) -> dict[str, Any]:
    """The fields of `experiments.alen.Config` that are not its defaults; none for unknown names."""
    kind = "labels" if dataset in ("bibtex", "bookmarks") else dataset
    return _SHARED.get(kind, {}) | _OWN.get((kind, method), {})


_SHARED: dict[str, dict[str, Any]] = {
    "labels": dict(dropout_rate=0.5, value_decay=1.0),
    "horses": dict(batch_size=16, channels=(24, 48, 48), value_channels=(24, 48, 48)),
    "lfw_parts": dict(batch_size=16, channels=(24, 48, 48), value_channels=(24, 48, 48)),
}

_OWN: dict[tuple[str, str], dict[str, Any]] = {}
