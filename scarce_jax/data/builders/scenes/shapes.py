"""The silhouettes of `scenes`: one function per kind of object, which draws proportions and pose at random."""

from __future__ import annotations

import numpy as np

from scarce_jax.data.builders.scenes.draw import Part, Silhouette


def _curve(start: tuple[float, float], angle: float, length: float, bend: np.ndarray) -> np.ndarray:
    """Makes a line of len(bend) + 1 points, whose pieces turn by the mean of `bend` radians in all."""
    heading = angle + np.cumsum(bend) / len(bend)
    steps = np.stack([np.cos(heading), np.sin(heading)], 1) * length / len(bend)
    return np.concatenate([[start], np.asarray(start) + np.cumsum(steps, 0)])


def _limb(start: tuple[float, float], angle: float, length: float, bend: np.ndarray, w0: float, w1: float) -> Part:
    points = _curve(start, angle, length, bend)
    return Part(points=points, widths=np.linspace(w0, w1, len(points)))


def _ellipse(cx: float, cy: float, rx: float, ry: float, n: int = 40) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([cx + rx * np.cos(t), cy + ry * np.sin(t)], 1)


def fish(rng: np.random.Generator) -> Silhouette:
    """Body with a forked tail, a ragged back fin, belly fins; from slender to deep, bent along its length."""
    depth = rng.uniform(0.16, 0.34)
    t = np.linspace(0, 1, 24)
    # A blunt head at x = 0.5 and a thin tail root at x = -0.3.
    profile = depth * np.sin(np.pi * t**0.75) ** 0.8 * (1 - 0.25 * t) + 0.035 * t
    x = 0.5 - 0.8 * t
    body = np.concatenate([np.stack([x, -profile], 1), np.stack([x, profile * 0.9], 1)[::-1]])
    spread, fork = rng.uniform(0.14, 0.28), rng.uniform(0.05, 0.14)
    tail = np.array([
        [-0.27, -0.03], [-0.5, -spread], [-0.47, -spread * 0.4], [-0.5 + fork, 0.0],
        [-0.47, spread * 0.4], [-0.5, spread], [-0.27, 0.03],
    ])  # fmt: skip
    rays = rng.integers(3, 7)
    fx = np.linspace(0.22, -0.18, 2 * rays + 1)
    top = -np.interp(fx, x[::-1], profile[::-1])
    crest = top - rng.uniform(0.05, 0.16) * np.where(np.arange(len(fx)) % 2, 1.0, 0.55) * np.linspace(1, 0.6, len(fx))
    back = np.concatenate([np.stack([fx, top + 0.04], 1), np.stack([fx - 0.03, crest], 1)[::-1]])
    bottom = depth * 0.8
    belly = np.array([[0.12, bottom * 0.8], [-0.04, bottom + rng.uniform(0.06, 0.16)], [0.0, bottom * 0.7]])
    rear = np.array([[-0.1, bottom * 0.6], [-0.24, bottom * 0.6 + rng.uniform(0.04, 0.1)], [-0.2, bottom * 0.3]])
    mouth = np.array([[0.53, -0.03], [0.44, 0.015], [0.53, 0.04]])
    bend = rng.uniform(-0.35, 0.35)

    def bent(p: np.ndarray) -> np.ndarray:
        return np.stack([p[:, 0], p[:, 1] + bend * (p[:, 0] - 0.1) ** 2], 1)

    parts = [Part(points=bent(p)) for p in (body, tail, back, belly, rear)]
    eye_x = 0.36
    return Silhouette(
        parts=(*parts, Part(points=bent(mouth), cut=True)),
        eyes=((eye_x, -depth * 0.25 + bend * (eye_x - 0.1) ** 2, 0.07 + 0.04 * rng.random()),),
    )


def starfish(rng: np.random.Generator) -> Silhouette:
    """Five or six thick tapering arms, each a little bent."""
    arms = int(rng.choice([5, 5, 6]))
    thick = rng.uniform(0.15, 0.24)
    parts = [Part(points=_ellipse(0, 0, thick * 0.8, thick * 0.8))]
    for i in range(arms):
        angle = 2 * np.pi * i / arms + rng.uniform(-0.12, 0.12)
        bend = np.full(8, rng.uniform(-0.7, 0.7))
        parts.append(_limb((0, 0), angle, rng.uniform(0.42, 0.54), bend, thick, thick * 0.25))
    return Silhouette(parts=parts)


def octopus(rng: np.random.Generator) -> Silhouette:
    """A round head above six to eight long, thin, curling arms."""
    arms = int(rng.integers(6, 9))
    rx, ry = rng.uniform(0.13, 0.18), rng.uniform(0.16, 0.22)
    parts = [Part(points=_ellipse(0, -0.26, rx, ry)), Part(points=_ellipse(0, -0.1, rx * 0.8, 0.11))]
    for i in range(arms):
        angle = np.pi * (0.02 + 0.96 * (i + rng.uniform(-0.2, 0.2)) / (arms - 1))
        side = 1.0 if angle < np.pi / 2 else -1.0
        curl = np.linspace(rng.uniform(-1.5, 0.5), rng.uniform(1.5, 5.0), 16) * -side
        curl += np.sin(np.linspace(0, 6, 16) + rng.uniform(0, 6)) * 1.2
        parts.append(_limb((0, -0.08), angle, rng.uniform(0.5, 0.75), curl, 0.1, 0.025))
    return Silhouette(parts=parts, eyes=((-rx * 0.5, -0.2, 0.07), (rx * 0.5, -0.2, 0.07)))


def crab(rng: np.random.Generator) -> Silhouette:
    """A wide shell, eight thin jointed legs, two open claws."""
    rx, ry = rng.uniform(0.2, 0.26), rng.uniform(0.14, 0.19)
    parts = [Part(points=_ellipse(0, 0, rx, ry))]
    for side in (-1.0, 1.0):
        for leg in range(4):
            a = np.deg2rad(-12 + 22 * leg + rng.uniform(-6, 6))
            knee = np.array([side * (rx * 0.8 + 0.14 * np.cos(a)), 0.13 * np.sin(a) - 0.05])
            foot = knee + [side * rng.uniform(0.06, 0.13), 0.12 + 0.05 * leg * rng.uniform(0.5, 1.2)]
            root = np.array([side * rx * 0.75, 0.05 * np.sin(a)])
            parts.append(Part(points=np.stack([root, knee, foot]), widths=np.array([0.05, 0.045, 0.02])))
        elbow = np.array([side * (rx + 0.1), -rng.uniform(0.05, 0.15)])
        hand = elbow + [-side * rng.uniform(-0.06, 0.08), -rng.uniform(0.1, 0.17)]
        parts.append(
            Part(points=np.stack([[side * rx * 0.8, -0.05], elbow, hand]), widths=np.array([0.06, 0.06, 0.06]))
        )
        grip = rng.uniform(0.08, 0.12)
        parts.append(Part(points=_ellipse(*(hand - [0, grip * 0.6]), grip * 0.8, grip)))
        tip = hand - [0, grip * 1.8]
        wedge = np.stack([hand - [0, grip * 0.5], tip + [-side * 0.05, -0.02], tip + [side * 0.04, -0.02]])
        parts.append(Part(points=wedge, cut=True))
    return Silhouette(parts=parts, eyes=((-0.07, -ry * 0.7, 0.06), (0.07, -ry * 0.7, 0.06)))


def jellyfish(rng: np.random.Generator) -> Silhouette:
    """A bell with a scalloped rim and a skirt of thin waving tentacles."""
    rx, ry = rng.uniform(0.24, 0.34), rng.uniform(0.2, 0.3)
    t = np.linspace(np.pi, 2 * np.pi, 24)
    dome = np.stack([rx * np.cos(t), -0.12 + ry * np.sin(t)], 1)
    scallops = int(rng.integers(5, 9))
    s = np.linspace(0, scallops * np.pi, 8 * scallops)
    rim = np.stack([np.linspace(rx, -rx, len(s)), -0.12 + 0.06 * np.abs(np.sin(s))], 1)
    parts = [Part(points=np.concatenate([dome, rim]))]
    for x in np.linspace(-0.8, 0.8, int(rng.integers(5, 9))) * rx:
        wave = np.sin(np.linspace(0, rng.uniform(4, 9), 14) + rng.uniform(0, 6)) * rng.uniform(1.0, 3.0)
        thick = rng.uniform(0.02, 0.06)
        parts.append(_limb((x, -0.13), np.pi / 2, rng.uniform(0.35, 0.7), wave, thick, thick * 0.6))
    return Silhouette(parts=parts)


def eel(rng: np.random.Generator) -> Silhouette:
    """A long winding band with a low fin along part of its back."""
    n = 48
    waves = rng.uniform(1.0, 2.2)
    bend = np.sin(np.linspace(0, 2 * np.pi * waves, n) + rng.uniform(0, 6)) * rng.uniform(4, 9) + rng.uniform(-3, 3)
    points = _curve((0, 0), rng.uniform(0, 6), 1.7, bend)
    points -= points.mean(0)
    t = np.linspace(0, 1, n + 1)
    widths = rng.uniform(0.08, 0.13) * np.minimum(1, 0.6 + 4 * t) * np.clip(1.15 - t, 0.12, 1)
    step = np.gradient(points, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], 1) / np.linalg.norm(step, axis=1, keepdims=True)
    crest = points + normal * (widths * 0.55)[:, None]
    fin = slice(6, int(n * rng.uniform(0.5, 0.9)))
    eye = points[2] + normal[2] * widths[2] * 0.2
    return Silhouette(
        parts=(Part(points=points, widths=widths), Part(points=crest[fin], widths=widths[fin] * 0.4)),
        eyes=((*eye, 0.045),),
    )


def kelp(rng: np.random.Generator) -> Silhouette:
    """A tall wavy stem, from y = 0.5 up to -0.5, with pointed leaves on both sides."""
    n = 24
    sway = np.sin(np.linspace(0, rng.uniform(3, 7), n) + rng.uniform(0, 6)) * rng.uniform(0.5, 1.4)
    stem = _curve((0, 0.5), -np.pi / 2, 1.0, sway)
    parts = [Part(points=stem, widths=np.linspace(0.03, 0.015, n + 1))]
    side, broad = 1, rng.uniform(0.035, 0.06)
    for i in range(4, n + 1, 2):
        side = -side
        length = rng.uniform(0.14, 0.24) * (1.15 - 0.5 * i / n)
        leaf = _curve(tuple(stem[i]), -np.pi / 2 + side * rng.uniform(0.7, 1.5), length, np.full(8, -side * 0.9))
        parts.append(Part(points=leaf, widths=broad * np.sin(np.linspace(0.35, np.pi - 0.05, 9))))
    return Silhouette(parts=parts)


def coral(rng: np.random.Generator) -> Silhouette:
    """A branching tree of round-tipped twigs, from y = 0.5 up."""
    parts: list[Part] = []
    spread = rng.uniform(0.35, 0.6)

    def grow(start: tuple[float, float], angle: float, length: float, width: float, level: int) -> None:
        branch = _limb(start, angle, length, rng.uniform(-0.5, 0.5) * np.ones(4), width, width * 0.75)
        parts.append(branch)
        if level:
            twigs = int(rng.choice([2, 2, 3]))
            for k in range(twigs):
                turn = spread * (2 * k / (twigs - 1) - 1) + rng.uniform(-0.2, 0.2)
                shorter = length * rng.uniform(0.65, 0.9)
                grow(tuple(branch.points[-1]), angle + turn, shorter, width * 0.78, level - 1)

    grow((0, 0.5), -np.pi / 2, rng.uniform(0.22, 0.3), rng.uniform(0.08, 0.13), 3)
    return Silhouette(parts=parts)


def shell(rng: np.random.Generator) -> Silhouette:
    """A scallop: a ribbed fan on a small hinge."""
    ribs = int(rng.integers(5, 9))
    opening = rng.uniform(0.95, 1.25)
    t = np.linspace(-opening, opening, 10 * ribs)
    radius = 0.78 + 0.07 * np.abs(np.sin(np.linspace(0, ribs * np.pi, len(t)))) - 0.1 * (t / opening) ** 2
    fan = np.concatenate([[[0, 0.42]], np.stack([np.sin(t) * radius, 0.42 - np.cos(t) * radius], 1)])
    hinge = np.array([[-0.22, 0.5], [-0.14, 0.3], [0.14, 0.3], [0.22, 0.5]])
    return Silhouette(parts=(Part(points=fan), Part(points=hinge)))


def boulder(rng: np.random.Generator) -> Silhouette:
    """Background clutter: a lumpy stone."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    lumps = sum(rng.uniform(-0.06, 0.06) * np.cos(k * t + rng.uniform(0, 6)) for k in range(2, 6))
    radius = 0.42 + lumps
    return Silhouette(parts=(Part(points=np.stack([radius * np.cos(t), radius * 0.75 * np.sin(t)], 1)),))


def grass(rng: np.random.Generator) -> Silhouette:
    """Background clutter: a tuft of thin blades, similar to the arms of an octopus or the tentacles of a jellyfish."""
    parts = [
        _limb((x, 0.5), -np.pi / 2 + rng.uniform(-0.4, 0.4), rng.uniform(0.4, 0.95),
              np.linspace(0, rng.uniform(-1.5, 1.5), 10), rng.uniform(0.03, 0.06), 0.012)
        for x in rng.uniform(-0.2, 0.2, int(rng.integers(4, 9)))
    ]  # fmt: skip
    return Silhouette(parts=parts)


def twig(rng: np.random.Generator) -> Silhouette:
    """Background clutter: a thin drifting line, straight or winding."""
    bend = np.sin(np.linspace(0, rng.uniform(1, 6), 16)) * rng.uniform(-3, 3)
    points = _curve((0, 0), 0.0, 1.0, bend)
    points -= points.mean(0)
    return Silhouette(parts=(Part(points=points, widths=np.full(17, rng.uniform(0.02, 0.05))),))
