"""Self-diffusion: spreads class activation maps over superpixels to a label map.

"Transferable Semi-supervised Semantic Segmentation", section L-Net, equation 2. The printed equation has only the seeds
of one class, and its only minimiser on a connected graph is 1 everywhere. The label of a superpixel is therefore that
of the multi-label random walker (Grady, "Random walks for image segmentation"). The seeds of all present classes and of
the background are fixed. The probability of each label minimises equation 2 with its own seeds at 1 and all other seeds
at 0, and the probabilities of all labels sum to 1.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from annotated_types import Interval

from scarce_jax.cpu.superpixels import adjacency, at_border, cielab, normalised, region_means, superpixels
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError
from scarce_jax.ranges import Count, Positive, Share

FREE = -1
"""Value of a node in `seeds` that is not a seed."""

BACKGROUND = 0
"""Label of the background in `seeds`, and its column in the probabilities. The present classes follow in order."""

_FAINTEST = 1e-12
"""The smallest affinity, which keeps the graph connected in floating point."""


class Status(enum.IntEnum):
    """How the label map of an image was made. The first three are solved, the others are constant.

    Attributes:
      SOLVED: foreground and background have seeds.
      BORDER_BACKGROUND: no superpixel is confident background. Those at the border without a foreground seed are used.
      NO_BACKGROUND: all superpixels at the border are foreground seeds, so there is no background. With one class the
        whole image is of that class.
      NO_TAGS: no class is present; the map is background.
      ONE_SUPERPIXEL: the image is one superpixel; the map is 255 (undecided).
      NO_FOREGROUND: the maps of all present classes are zero; the map is 255 (undecided).
    """

    SOLVED = 0
    BORDER_BACKGROUND = 1
    NO_BACKGROUND = 2
    NO_TAGS = 3
    ONE_SUPERPIXEL = 4
    NO_FOREGROUND = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
    """Self-diffusion with these settings: the `finish` of an `Infer` stage, which makes label maps from tags.

    The paper specifies the features and the affinity, but none of these values.

    Attributes:
      background: class id of the background; None if the dataset has none, which makes it 255.
      segments: number of superpixels to start from (ours; related saliency papers use 200 to 300).
      compactness: CIELAB distance that counts as much as one grid step (ours; of 10 and 20 the one whose superpixels
        follow the outlines of VOC's animals better).
      iterations: k-means iterations of SLIC (ours; 10 takes nearly twice as long, see benchmarks/self_diffusion.py).
      sigma2: sigma^2 of the affinity, above 0 (from the related saliency papers).
      foreground_seed: superpixels at least this strong are seeds of a class (ours). Strength is the mean of the class
        map as a share of its largest value, 0 to 1. The strongest superpixel of a class is always a seed, so that no
        small object is lost.
      seed_objectness: weight w of the L-Net in the choice of seeds, 0 to 1: class maps are multiplied by
        1 - w + w * objectness. 0 in the paper, so that objects that the L-Net misses are found. Larger values suit
        coarse class maps.
      background_map: background seeds have a strength below this in all present classes (ours).
      background_objectness: background seeds also have an objectness below this (ours).
      decision: least sum of the class probabilities, 0 to 1, at which a superpixel is foreground. It then has the most
        probable class. (Ours; with one class and the default it is the paper's "larger q".)
    """

    background: Annotated[int, Interval(ge=0, le=254)] | None = 0
    segments: Annotated[int, Interval(ge=1, le=2**16)] = 300
    compactness: Positive = 20.0
    iterations: Count = 5
    sigma2: Positive = 0.1
    foreground_seed: Share = 0.6
    seed_objectness: Share = 0.0
    background_map: Share = 0.2
    background_objectness: Share = 0.2
    decision: Share = 0.5

    def __call__(self, example_id: str, fields: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """Makes the label map of one image. Equal inputs give equal bytes.

        Args:
          example_id: id of the image, for messages.
          fields:
            image: uint8 [H, W, 3] RGB.
            height, width: int32 [], size of the valid part at the top left of the image; if missing, all of it is.
            tags: uint8 [K], 1 for classes that are present. The entry of the background is ignored.
            cam: floating [h, w, C], class activation maps of the C classes other than the background, in the order of
              `tags`. Values below 0 and the maps of absent classes count as 0. The cells tile the image, as those of a
              VGG-16 do.
            objectness: floating [h', w'] in 0..1, the L-Net's probability of foreground. The centres of its corner
              cells are the corner pixels, as in LargeFOV, whose poolings are padded. If it is missing or None,
              superpixels are compared only by colour, and background seeds depend only on the class maps.

        Returns:
          label: uint8 [height, width], class ids, and 255 where undecided (see `Status`).
          status: uint8 [], a `Status`.
          objectness: uint8 [h', w'], the given one times 255, of a padded image at its pixels, [height, width]; absent
            if none is given.

        Raises:
          InputError: maps or objectness are not finite.
          ValueError: the number of maps is not that of the tags without the background.
        """
        objectness = fields.get("objectness")
        if objectness is None:
            return self._label(example_id, fields)
        label = self._label(example_id, fields)
        height, width = label["label"].shape
        probability = _finite(example_id, "objectness", np.asarray(objectness))
        if (height, width) != fields["image"].shape[:2]:
            at_canvas = at_pixels(probability[..., None], fields["image"], align_corners=True)
            probability = at_canvas[:height, :width, 0]
        return {**label, "objectness": np.rint(255 * probability).astype(np.uint8)}

    def _label(self, example_id: str, fields: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """The label map and the status."""
        canvas, tags, cam = fields["image"], np.asarray(fields["tags"]), np.asarray(fields["cam"])
        image = canvas[: fields.get("height"), : fields.get("width")]
        classes = np.array([k for k in range(tags.size) if k != self.background], np.intp)
        if cam.ndim != 3 or cam.shape[-1] != classes.size:
            raise ValueError(
                f"{example_id}: cam {list(cam.shape)}; expected [h, w, {classes.size}] for {tags.size} tags and "
                f"background {self.background}"
            )
        background = IGNORE if self.background is None else self.background
        present = tags[classes] > 0
        if not present.any():
            return _uniform(image, background, Status.NO_TAGS)
        maps = np.maximum(_finite(example_id, "cam", cam[..., present]), 0)
        maps = at_pixels(maps, canvas, align_corners=False)[: image.shape[0], : image.shape[1]]  # [H, W, present]
        lab = cielab(image)
        regions = superpixels(lab, segments=self.segments, compactness=self.compactness, iterations=self.iterations)
        if regions.max() == 0:
            return _uniform(image, IGNORE, Status.ONE_SUPERPIXEL)
        objectness = _region_objectness(example_id, fields.get("objectness"), canvas, regions)  # [N, 1] or None
        strength = self._strength(maps, objectness, regions)  # [N, present]
        features = normalised(region_means(lab, regions))  # [N, 3]
        if objectness is not None:
            features = np.concatenate([features, objectness], 1)  # [N, 4]
            objectness = objectness[:, 0]
        seeds, status = find_seeds(strength, objectness, at_border(regions), self)
        if status is Status.NO_FOREGROUND:
            return _uniform(image, IGNORE, status)
        edges = adjacency(regions)
        weights = affinities(features, edges, self.sigma2)
        columns = decide(random_walker(edges, weights, seeds, 1 + strength.shape[1]), self.decision)  # [N]
        class_ids = np.concatenate([[background], classes[present]]).astype(np.uint8)
        return {"label": class_ids[columns][regions], "status": np.uint8(status)}

    def _strength(self, maps: np.ndarray, objectness: np.ndarray | None, regions: np.ndarray) -> np.ndarray:
        """Means of class maps over regions, as shares of each map's largest value: [H, W, C] -> [N, C]."""
        tiny = np.finfo(np.float32).tiny
        strength = region_means(maps, regions) / np.maximum(maps.max((0, 1)), tiny)
        if objectness is not None and self.seed_objectness:
            strength = strength * (1 - self.seed_objectness + self.seed_objectness * objectness)
            strength = strength / np.maximum(strength.max(0), tiny)
        return strength


def find_seeds(
    strength: np.ndarray, objectness: np.ndarray | None, border: np.ndarray, settings: Diffusion
) -> tuple[np.ndarray, Status]:
    """Selects the seeds: the label at which each superpixel is fixed, or `FREE`.

    If several classes claim a superpixel, it goes to the class whose strongest superpixel it is, then to the class with
    the larger strength, then to the first.

    Args:
      strength: float [N, C], means of the class maps, as shares (0..1) of each map's largest value.
      objectness: float [N] or None.
      border: bool [N], whether a superpixel touches the border of the image.
      settings: thresholds.

    Returns:
      int [N], `FREE`, `BACKGROUND`, or 1 + the column of the class, and a status, which is `Status.NO_FOREGROUND` if
      there is no foreground seed. A class may have none if its map is zero or if its strongest superpixel went to
      another.
    """
    strongest = strength == strength.max(0)
    strongest &= (np.cumsum(strongest, 0) == 1) & (strength > 0)
    claims = np.where(strongest, strength + 1, strength)
    claimed = strongest | ((strength >= settings.foreground_seed) & (strength > 0))
    foreground = claimed.any(1)
    best = np.where(claimed, claims, -1).argmax(1)
    confident = (strength < settings.background_map).all(1) & ~foreground
    if objectness is not None:
        confident &= objectness < settings.background_objectness
    status = Status.SOLVED
    if not confident.any():
        confident = border & ~foreground
        status = Status.BORDER_BACKGROUND if confident.any() else Status.NO_BACKGROUND
    if not foreground.any():
        status = Status.NO_FOREGROUND
    return np.where(foreground, 1 + best, np.where(confident, BACKGROUND, FREE)), status


def affinities(features: np.ndarray, edges: np.ndarray, sigma2: float) -> np.ndarray:
    """Affinity z = exp(-|F_i - F_j| / (2 sigma^2)) of each edge, float64 [E]. The norm is not squared, as printed.

    Args:
      features: float [N, D].
      edges: int [E, 2].
    """
    distance = np.linalg.norm(features[edges[:, 0]] - features[edges[:, 1]], axis=1)
    return np.maximum(np.exp(-distance / (2 * sigma2)), _FAINTEST)


def random_walker(edges: np.ndarray, weights: np.ndarray, seeds: np.ndarray, labels: int) -> np.ndarray:
    """Probability that a random walk from each node reaches a seed of each label first.

    Column q minimises sum_ij w_ij (q_i - q_j)^2 with q fixed at 1 on the seeds of the label and at 0 on all others.
    With the graph's Laplacian L, the free nodes U and the seeds S, L_UU q_U = -L_US q_S. One factorisation of L_UU
    serves all labels.

    Args:
      edges: int [E, 2], each pair of nodes once.
      weights: float [E], above 0.
      seeds: int [N], a label 0..labels-1 or `FREE`.
      labels: number of labels.

    Returns:
      float64 [N, labels] in 0..1, whose rows sum to 1.

    Raises:
      ValueError: a node has no path to a seed, so that its probabilities are undefined.
    """
    count = seeds.size
    probabilities = np.zeros((count, labels))
    held = np.flatnonzero(seeds != FREE)
    free = np.flatnonzero(seeds == FREE)
    probabilities[held, seeds[held]] = 1
    if not free.size:
        return probabilities
    i, j = edges.T
    graph = scipy.sparse.coo_array((weights, (i, j)), (count, count)).tocsr()
    graph = (graph + graph.T).tocsr()
    parts, part = scipy.sparse.csgraph.connected_components(graph, directed=False)
    if np.unique(part[held]).size < parts:
        raise ValueError(f"{np.isin(part, part[held], invert=True).sum()} of {count} nodes have no path to a seed")
    rows = graph[free]
    system = scipy.sparse.diags_array(rows.sum(1)) - rows[:, free]
    # The column order is for symmetric matrices. Pivots can stay on the diagonal, which dominates.
    factors = scipy.sparse.linalg.splu(
        system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    probabilities[free] = np.clip(factors.solve(rows[:, held] @ probabilities[held]), 0, 1)
    return probabilities


def decide(probabilities: np.ndarray, decision: float) -> np.ndarray:
    """Decides the label of each node: int [N], `BACKGROUND` or the column of the most probable other label.

    Args:
      probabilities: float [N, labels], with the column `BACKGROUND` first.
      decision: least sum of the other labels' probabilities at which a node is not background.
    """
    others = probabilities[:, 1:]
    return np.where(others.sum(1) >= decision, 1 + others.argmax(1), BACKGROUND)


def _region_objectness(
    example_id: str, objectness: np.ndarray | None, image: np.ndarray, regions: np.ndarray
) -> np.ndarray | None:
    """Means of an objectness map over regions, [h, w] -> [N, 1]; None if there is no map."""
    if objectness is None:
        return None
    objectness = _finite(example_id, "objectness", np.asarray(objectness)[..., None])
    height, width = regions.shape
    return region_means(at_pixels(objectness, image, align_corners=True)[:height, :width], regions)


def _uniform(image: np.ndarray, value: int, status: Status) -> dict[str, np.ndarray]:
    """A constant label map, and its status."""
    return {"label": np.full(image.shape[:2], value, np.uint8), "status": np.uint8(status)}


def _finite(example_id: str, name: str, maps: np.ndarray) -> np.ndarray:
    """The maps in float32. Raises InputError if they are not finite."""
    if not np.isfinite(maps).all():
        raise InputError(f"{example_id}: field {name} is not finite; its net has diverged, so lower its learning rate")
    return maps.astype(np.float32)


def at_pixels(maps: np.ndarray, image: np.ndarray, *, align_corners: bool) -> np.ndarray:
    """Interpolates maps bilinearly at the pixels of an image: float32 [H, W, D].

    Args:
      maps: float32 [h, w, D].
      image: [H, W, ...].
      align_corners: True aligns the centres of the corner cells with those of the corner pixels. False aligns the outer
        edges, and pixels beyond the centre of the first or last cell take that cell.
    """
    for axis in (0, 1):
        low, high, weight = _taps(maps.shape[axis], image.shape[axis], align_corners)
        weight = weight[:, None, None] if axis == 0 else weight[:, None]
        maps = maps.take(low, axis) * (1 - weight) + maps.take(high, axis) * weight
    return maps


def _taps(source: int, target: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two source cells around each target pixel, and the weight of the second: three arrays [target]."""
    index = np.arange(target)
    if align_corners:
        position = index * ((source - 1) / max(target - 1, 1))
    else:
        position = np.clip((index + 0.5) * (source / target) - 0.5, 0, source - 1)
    low = np.minimum(position.astype(np.intp), source - 1)
    return low, np.minimum(low + 1, source - 1), (position - low).astype(np.float32)
