"""Pictures of a run, as PNG with the plotted numbers as CSV beside them.

Matplotlib is imported when a picture is drawn, through its object-oriented API: no display, no
global figure, nothing to close.
"""

import contextlib
import csv
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "large",
    "font.size": 11.0,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_DPI = 120
# Up to so many points, each gets a mark.
_FEW = 12
_Path = str | os.PathLike[str]
# The mean of curves with the lower and upper edge of a band around it.
Band = tuple[np.ndarray, np.ndarray, np.ndarray]
Curve = np.ndarray | Band


def save_image_grid(
    path: _Path,
    images: Any,
    *,
    columns: int = 10,
    titles: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Writes a PNG with the images in rows of `columns`.

    Args:
      path: the PNG to write.
      images: array [n, h, w] or [n, h, w, 3], values in [0, 1]; 1 is white.
      columns: images in a row.
      titles: a short line above each image.
      title: a line above the whole.

    Raises:
      ValueError: if `images` has another shape or `titles` another length.
    """
    images = _checked_images("images", images)
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles: wanted {len(images)}, got {len(titles)}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width, height = _image_inches(images)
    room = 0.25 if titles else 0.0
    wide = max(columns * width, 0.12 * len(title))
    with _figure(path, wide, rows * (height + room) + 0.45 * bool(title)) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for index, (axis, image) in enumerate(zip(axes, images, strict=False)):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(titles[index] if titles else "", fontsize="small", pad=2)
        figure.suptitle(title)


def save_side_by_side(
    path: _Path, panels: Mapping[str, Any], *, columns: int = 8, title: str = ""
) -> None:
    """Writes a PNG with one named grid of images beside another.

    Args:
      path: the PNG to write.
      panels: `{name: array [n, h, w] or [n, h, w, 3]}`, values in [0, 1]; 1 is white.
      columns: images in a row of each panel.
      title: a line above the whole.

    Raises:
      ValueError: if an array has another shape.
    """
    grids = {
        name: _tiled(_checked_images(name, images), columns) for name, images in panels.items()
    }
    # A fixed width a panel; the tallest panel sets the height.
    inches = 0.5 * columns
    tallest = max(grid.shape[0] / grid.shape[1] for grid in grids.values())
    height = inches * tallest + 0.4 + 0.45 * bool(title)
    with _figure(path, (inches + 0.3) * len(grids), height) as figure:
        axes = figure.subplots(1, len(grids), squeeze=False).ravel()
        for axis, (name, grid) in zip(axes, grids.items(), strict=True):
            axis.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(name)
            axis.set_anchor("N")
            axis.set_axis_off()
        figure.suptitle(title)


def band(curves: Sequence[np.ndarray]) -> Band:
    """The mean of several curves [n], and between their least and their largest."""
    stacked = np.stack(curves)
    return stacked.mean(axis=0), stacked.min(axis=0), stacked.max(axis=0)


def save_curves(
    path: _Path,
    x: Any,
    curves: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    logx: bool = False,
) -> None:
    """Writes a PNG of curves over `x`, and a CSV with a column for each.

    Args:
      path: the PNG to write; the CSV gets the same name with `.csv`.
      x: array [n].
      curves: `{name: y}`, or `{name: (mean, low, high)}` for a curve with a band; arrays [n].
        NaN leaves a gap.
      xlabel: what `x` is, with its unit.
      ylabel: what the curves are, with their unit.
      title: a line above the plot.
      logx: logarithmic horizontal axis (linear between -1 and 1, so that 0 has a place).

    Raises:
      ValueError: if a curve has another length than `x`.
    """
    x = np.asarray(x)
    with _figure(path, 6.4, 4.0) as figure:
        axis = figure.subplots()
        _draw_curves(axis, x, curves, logx=logx)
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if len(curves) > 1:
            axis.legend()
    _save_csv(path, {xlabel: x} | _curve_columns(curves))


def save_panels(
    path: _Path,
    x: Any,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    xlabel: str,
    columns: int = 2,
    logx: bool = False,
) -> None:
    """Writes a PNG of several plots over the same `x`, from 0 upwards, and a CSV with all of them.

    Args:
      path: the PNG to write; the CSV gets the same name with `.csv`.
      x: array [n].
      panels: `{title: curves}`, the curves as in `save_curves`, of the same names in each panel.
      xlabel: what `x` is, with its unit.
      columns: plots in a row.
      logx: logarithmic horizontal axes (linear between -1 and 1, so that 0 has a place).

    Raises:
      ValueError: if a curve has another length than `x`.
    """
    x = np.asarray(x)
    table: dict[str, np.ndarray] = {xlabel: x}
    rows = -(-len(panels) // columns)
    with _figure(path, 4.8 * columns, 3.2 * rows + 0.6) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            _draw_curves(axis, x, curves, logx=logx)
            axis.set(xlabel=xlabel, title=title)
            axis.set_ylim(bottom=0)
            table |= {f"{title}: {name}": y for name, y in _curve_columns(curves).items()}
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save_csv(path, table)


def save_boxplot(
    path: _Path,
    values: Any,
    labels: Sequence[str],
    *,
    ylabel: str,
    xlabel: str = "",
    title: str = "",
) -> None:
    """Writes a PNG with a box (quartiles, median, whiskers, outliers) a column, and a CSV.

    Args:
      path: the PNG to write; the CSV gets the same name with `.csv`.
      values: array [n, k]: n values for each of k boxes.
      labels: k names.
      ylabel: what the values are, with their unit.
      xlabel: what the names are.
      title: a line above the plot.

    Raises:
      ValueError: if `values` is not [n, k].
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != len(labels):
        raise ValueError(f"values: wanted shape [n, {len(labels)}], got {list(values.shape)}")
    with _figure(path, max(4.0, 1.5 + 0.7 * len(labels)), 4.0) as figure:
        axis = figure.subplots()
        boxes = axis.boxplot(
            values,
            widths=0.6,
            patch_artist=True,
            medianprops={"color": _COLOURS[1], "linewidth": 2},
            flierprops={"marker": "o", "markersize": 3, "alpha": 0.5},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=_COLOURS[5], alpha=0.5)
        axis.set_xticks(range(1, len(labels) + 1), labels)
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axis.grid(visible=False, axis="x")
    _save_csv(path, dict(zip(labels, values.T, strict=True)))


@contextlib.contextmanager
def _figure(path: _Path, width: float, height: float) -> Iterator[Any]:
    """Yields a figure of that many inches and then writes it to `path`."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Without the version in it, the same numbers give the same file.
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _draw_curves(axis: Any, x: np.ndarray, curves: Mapping[str, Curve], *, logx: bool) -> None:
    for (name, curve), colour in zip(curves.items(), itertools.cycle(_COLOURS), strict=False):
        mean, *band = curve if isinstance(curve, tuple) else (curve,)
        marker = "o" if len(x) <= _FEW else ""
        axis.plot(x, mean, label=name, color=colour, marker=marker, markersize=4)
        if band:
            axis.fill_between(x, *band, color=colour, alpha=0.18, linewidth=0)
    if logx:
        axis.set_xscale("symlog", linthresh=1)
    if logx and len(x) <= _FEW:
        axis.set_xticks(x, [f"{value:g}" for value in x])


def _curve_columns(curves: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    columns = {}
    for name, curve in curves.items():
        mean, *band = curve if isinstance(curve, tuple) else (curve,)
        columns[name] = np.asarray(mean)
        if band:
            columns |= {f"{name} low": band[0], f"{name} high": band[1]}
    return columns


def _checked_images(name: str, images: Any) -> np.ndarray:
    images = np.asarray(images, np.float32)
    if not len(images) or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise ValueError(
            f"{name}: wanted shape [n, h, w] or [n, h, w, 3], got {list(images.shape)}"
        )
    return np.clip(images, 0, 1)


def _image_inches(images: np.ndarray) -> tuple[float, float]:
    height, width = images.shape[1:3]
    scale = 0.75 / max(height, width)
    return width * scale, height * scale


def _tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Returns one image [H, W, ...] of all, a mid-grey line between them."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width, *colour = images.shape[1:]
    line = max(1, round(max(height, width) / 16))
    tiles = np.ones((rows * columns, height + line, width + line, *colour), np.float32)
    tiles[: len(images), :-line, :-line] = images
    tiles[: len(images), -line:] = tiles[: len(images), :, -line:] = 0.6
    rows_of_tiles = tiles.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2)
    return rows_of_tiles.reshape(rows * (height + line), columns * (width + line), *colour)


def _save_csv(path: _Path, columns: Mapping[str, Any]) -> None:
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    with open(pathlib.Path(path).with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
