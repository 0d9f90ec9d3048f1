"""Slow references of the wrappers in numpy: one image at a time, the formulas written out in loops.

Nothing of camplug is used here. Everywhere `look(image [C,H,W], classes, size=None)` gives the inner maps [K,h,w] of
one image (at the image's size if none is given), and `chance(image, classes)` the weight of each class in it [K].
"""

from __future__ import annotations

import numpy as np


def certain(image, classes):
    return np.ones(len(classes))


def scaled(one):
    """A map with maximum 1, or zeros."""
    return one / one.max() if one.size and one.max() > 0 else np.zeros_like(one)


def bilinear(one, size):
    """A map [h,w] at another size, corners not aligned."""
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * one.shape[0] / size[0] - 0.5, 0), one.shape[0] - 1)
            x = min(max((j + 0.5) * one.shape[1] / size[1] - 0.5, 0), one.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, one.shape[0] - 1), min(left + 1, one.shape[1] - 1)
            dy, dx = y - top, x - left
            out[i, j] = (1 - dy) * ((1 - dx) * one[top, left] + dx * one[top, right])
            out[i, j] += dy * ((1 - dx) * one[bottom, left] + dx * one[bottom, right])
    return out


def cubic(t):
    """The filter of PIL's bicubic resizing, a = -0.5."""
    t = abs(t)
    if t < 1:
        return (1.5 * t - 2.5) * t * t + 1
    return ((-0.5 * t + 2.5) * t - 4) * t + 2 if t < 2 else 0.0


def cubic_rows(n, m):
    """[m,n]: how each of m new pixels is made of n old ones; the filter grows with the shrinking."""
    rows = np.zeros((m, n))
    for i in range(m):
        centre, wide = (i + 0.5) * n / m, max(n / m, 1)
        for j in range(max(int(centre - 2 * wide + 0.5), 0), min(int(centre + 2 * wide + 0.5), n)):
            rows[i, j] = cubic((j + 0.5 - centre) / wide)
        rows[i] /= rows[i].sum()
    return rows


def bicubic(image, size):
    """An image [C,H,W] at another size."""
    return np.stack([cubic_rows(c.shape[0], size[0]) @ c @ cubic_rows(c.shape[1], size[1]).T for c in image])


def views(look, image, classes, scales, flip, fuse, size):
    """The fused, not normalised maps [K,h,w] of all views."""
    found = []
    for scale in scales:
        view = bicubic(image, tuple(round(side * scale) for side in image.shape[1:]))
        found.append([bilinear(m, size) for m in look(view, classes)])
        if flip:
            found.append([bilinear(m[:, ::-1], size) for m in look(view[:, :, ::-1].copy(), classes)])
    join = {"sum": sum, "max": lambda maps: np.maximum.reduce(list(maps)), "mean": lambda maps: sum(maps) / len(found)}
    return np.array([join[fuse]([maps[k] for maps in found]) for k in range(len(classes))])


def erasing(
    look, image, classes, threshold, stop, max_iter, combine, chance=certain, likely=certain, least=0.0, relative=False
):
    """The joined, not normalised maps [K,h,w], and the number of passes."""
    joined = np.zeros((len(classes), *image.shape[1:]))
    hidden = np.zeros(image.shape[1:], bool)
    followed = [True] * len(classes)
    for n in range(1, max_iter + 1):
        shown = image.copy()
        for channel in range(len(image)):
            shown[channel][hidden] = image[channel].mean()
        maps, weights, probability = look(shown, classes), chance(shown, classes), likely(shown, classes)
        if n == 1:
            peaks = [m.max() for m in maps]
        if relative:
            maps = [m / (max(m.max(), p) or 1) for m, p in zip(maps, peaks, strict=True)]
        for k in range(len(classes)):
            followed[k] = followed[k] and probability[k] >= least
            one = maps[k] * weights[k] if followed[k] or not hidden.any() else np.zeros_like(maps[k])
            joined[k] = np.maximum(joined[k], one) if combine == "max" else joined[k] + one
        new = np.zeros_like(hidden)
        for one in joined:
            new |= (scaled(one) > threshold) & ~hidden
        hidden |= new
        if new.sum() == 0 or new.sum() / new.size < stop or not any(followed):
            break
    if relative:  # on the scale of the first pass
        joined = joined * np.array(peaks)[:, None, None]
    return joined, n


def centre(one):
    """(row, column) of a map's centre of mass, cut to whole pixels; the middle of a map of zeros."""
    y, x, total = 0.0, 0.0, 0.0
    for i in range(one.shape[0]):
        for j in range(one.shape[1]):
            total += one[i, j]
            y += i * one[i, j]
            x += j * one[i, j]
    return (int(y / total), int(x / total)) if total > 0 else (one.shape[0] // 2, one.shape[1] // 2)


def quarters(centres, size, margin, smallest):
    """The four (top, bottom, left, right) about one centre, or about the box of two."""
    spans = []
    for axis in (0, 1):
        n, ends = size[axis], [c[axis] for c in centres]
        before = min(max(max(ends) + margin, smallest), n)  # [0, before) and [behind, n)
        behind = max(min(min(ends) - margin, n - smallest), 0)
        spans.append(((0, before), (behind, n)))
    return [(*rows, *columns) for rows in spans[0] for columns in spans[1]]


def splitting(
    look,
    image,
    classes,
    margins,
    many,
    smallest,
    combine="max",
    whole=False,
    zoom=1.0,
    locate=None,
    chance=certain,
    relative=False,
):
    """The united, not normalised maps [K,h,w]."""
    size = image.shape[1:]
    centres = [centre(m) for m in (locate or look)(image, classes)]
    jobs = [(0, size[0], 0, size[1], k) for k in range(len(classes)) if whole]
    if len(classes) > 2 and many == "none":
        jobs = [(0, size[0], 0, size[1], k) for k in range(len(classes))]
    else:
        for k in range(len(classes)):
            about = centres if len(classes) <= 2 else centres[k : k + 1]
            jobs += [(*q, k) for q in quarters(about, size, margins[len(about) - 1], smallest)]
    peaks = [m.max() for m in look(image, classes)]
    united, counts = np.zeros((len(classes), *size)), np.zeros((len(classes), *size))
    for top, bottom, left, right, k in jobs:
        part = image[:, top:bottom, left:right]
        seen = classes if len(classes) <= 2 or many == "none" else [classes[k]]  # what is erased depends on all of them
        if zoom != 1 and part.shape != image.shape:
            part = bicubic(part, (round((bottom - top) * zoom), round((right - left) * zoom)))
        row = seen.index(classes[k])
        found = look(part, seen, (bottom - top, right - left))[row] * chance(part, seen)[row]
        if relative:  # the class's probability weighs what was scaled
            raw = look(part, seen, (bottom - top, right - left))[row]
            found = raw / (max(raw.max(), peaks[k]) or 1) * chance(part, seen)[row]
        place = united[k, top:bottom, left:right]
        united[k, top:bottom, left:right] = np.maximum(place, found) if combine == "max" else place + found
        counts[k, top:bottom, left:right] += 1
    if combine == "mean":
        united /= np.maximum(counts, 1)
    return united * np.array(peaks)[:, None, None] if relative else united  # on the scale of the whole image


def competing(look, judge, image, classes, power):
    """The maps [K,h,w], each multiplied by its share of the strongest class, not normalised."""
    maps, judged = look(image, classes), [scaled(j) for j in judge(image, classes)]
    result = np.zeros_like(maps)
    for k in range(len(classes)):
        for i in range(maps.shape[1]):
            for j in range(maps.shape[2]):
                strongest = max(other[i, j] for other in judged)
                result[k, i, j] = maps[k, i, j] * ((judged[k][i, j] + 0.001) / (strongest + 0.001)) ** power
    return result
