"""The loss terms of a stage as functions of what a step proposes.

What depends on the targets alone is computed here, once, and only for terms that are on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyfacelat.errors import ConfigError
from pyfacelat.faces.regions import face_region, landmark_region
from pyfacelat.images import shrink_to
from pyfacelat.losses import latent, temporal
from pyfacelat.losses.colour import colour_distance, colour_slices
from pyfacelat.losses.coordinate import CoordinateDistance
from pyfacelat.losses.features import FeatureDistance
from pyfacelat.losses.noise import noise_regulariser
from pyfacelat.losses.objective import Candidate, TermFunction
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.losses.pixel import pixel_distance, thumbnail
from pyfacelat.losses.realism import RealismLoss
from pyfacelat.losses.structure import ms_ssim_distance
from pyfacelat.projection.config import ProjectionConfig, Stage
from pyfacelat.projection.landmark_term import LandmarkTerm
from pyfacelat.projection.networks import Networks
from pyfacelat.projection.space import LatentSpace, gaussianised_prior
from pyfacelat.projection.targets import Clip, Targets


class Terms:
    """Makes the term functions of each stage.

    Args:
        config: of the projection.
        nets: frozen.
        space: latent coordinates.
        landmark: the landmark term.

    """

    def __init__(
        self,
        config: ProjectionConfig,
        nets: Networks,
        space: LatentSpace,
        landmark: LandmarkTerm,
    ) -> None:
        self._config = config
        self._nets = nets
        self._space = space
        self._landmark = landmark
        self._gaussianised = None
        if config.uses("gaussianised"):
            self._gaussianised = gaussianised_prior(
                nets.generator, samples=config.w_samples, seed=config.w_seed
            )

    @torch.no_grad()
    def __call__(self, stage: Stage, start: Tensor, targets: Targets) -> dict[str, TermFunction]:
        """The terms that `stage` uses, by name; `start` [N,rows,D] is where it begins."""
        makers: dict[str, Callable[[Targets], TermFunction]] = {
            "perceptual": self._perceptual,
            "noise": lambda _: lambda c: noise_regulariser(c.noise.values()),
            "pixel": self._pixel,
            "colour": self._colour,
            "vgg": self._vgg,
            "ms_ssim": self._ms_ssim,
            "identity": self._identity,
            "discriminator": self._discriminator,
            "prior": lambda _: lambda c: latent.prior(c.whitened),
            "gaussianised": self._gaussian,
            "spread": lambda _: lambda c: latent.spread(c.whitened),
            "delta": lambda _: lambda c: latent.delta(c.whitened),
            "pull": lambda targets: self._pull(targets, start),
            "fidelity": lambda _: self._fidelity(),
            "smoothness": self._smoothness,
            "acceleration": self._acceleration,
        }
        terms = {name: make(targets) for name, make in makers.items() if stage.uses(name)}
        return terms | self._landmarks(stage, targets)

    def _landmarks(self, stage: Stage, targets: Targets) -> dict[str, TermFunction]:
        """The terms that look at heat maps; together they run the network once."""
        size, landmark = self._config.perceptual_size, self._landmark
        maps, points, confidence = targets.maps, targets.points, targets.confidence
        weights = targets.look.new_tensor(self._config.group_weights)
        shared = sum(stage.uses(term) for term in ("landmark", "coordinate", "jitter")) > 1
        network = self._nets.landmarker
        read: Callable[[Candidate], Tensor] = lambda c: network(shrink_to(c.images, size))  # noqa: E731
        if shared:
            read = _Once(read)
        terms: dict[str, TermFunction] = {}
        if stage.uses("coordinate"):
            coordinate = CoordinateDistance(weights)
            terms["coordinate"] = lambda c: coordinate(read(c), points, confidence)
        if stage.uses("jitter"):
            _clip_of(targets, "jitter")
            terms["jitter"] = lambda c: temporal.jitter(read(c), points, weights)
        of_maps = landmark.of_maps
        if shared and of_maps is not None:
            terms["landmark"] = lambda c: of_maps(read(c), maps, confidence)
        elif stage.uses("landmark"):
            terms["landmark"] = lambda c: landmark.distance(
                shrink_to(c.images, size), maps, confidence
            )
        return terms

    def _perceptual(self, targets: Targets) -> TermFunction:
        lpips, size = self._nets.perceptual, self._config.perceptual_size
        assert lpips is not None
        embedded = lpips.embed(shrink_to(targets.look, size))
        mask = self._mask(targets)
        rest = (embedded,) if mask is None else (embedded, mask)
        if isinstance(lpips, LPIPS):
            return lambda c: lpips.compare(shrink_to(c.images, size), *rest)
        # The caller's own metric has these two methods.
        return lambda c: lpips.distance(lpips.embed(shrink_to(c.images, size)), *rest)

    def _mask(self, targets: Targets) -> Tensor | None:
        """Where the look term looks, [N,1,S,S], or None for everywhere."""
        if self._config.perceptual_mask == "none":
            return None
        assert targets.look_points is not None
        region = face_region if self._config.perceptual_mask == "face" else landmark_region
        side = min(targets.look.shape[-1], self._config.perceptual_size)
        hidden = torch.maximum(
            region(targets.look_points, side), region(targets.points.to(targets.look), side)
        )
        return (1 - hidden).to(targets.look)

    def _pixel(self, targets: Targets) -> TermFunction:
        size, kind = self._config.pixel_size, self._config.pixel_kind
        small = thumbnail(targets.look, size)
        return lambda c: pixel_distance(thumbnail(c.images, size), small, kind)

    def _colour(self, targets: Targets) -> TermFunction:
        palette = colour_slices(targets.look)
        return lambda c: colour_distance(colour_slices(c.images), palette)

    def _vgg(self, targets: Targets) -> TermFunction:
        assert self._nets.features is not None
        size = self._config.perceptual_size
        distance = FeatureDistance(self._nets.features, self._config.vgg_layers, size=size)
        distance = distance.to(targets.look.device, targets.look.dtype)
        embedded = distance.embed(targets.look)
        return lambda c: distance.distance(distance.embed(c.images), embedded)

    def _ms_ssim(self, targets: Targets) -> TermFunction:
        size = self._config.perceptual_size
        smaller = shrink_to(targets.look, size)
        return lambda c: ms_ssim_distance(shrink_to(c.images, size), smaller)

    def _identity(self, targets: Targets) -> TermFunction:
        identity = self._nets.identity
        assert identity is not None
        embedded = identity.embed(targets.look if targets.person is None else targets.person)
        return lambda c: identity.distance(identity.embed(c.images), embedded)

    def _discriminator(self, targets: Targets) -> TermFunction:
        assert self._nets.discriminator is not None
        realism = RealismLoss(self._nets.discriminator)
        return lambda c: realism(c.images)

    def _gaussian(self, targets: Targets) -> TermFunction:
        prior = self._gaussianised
        assert prior is not None
        return lambda c: prior(c.ws)

    def _pull(self, targets: Targets, start: Tensor) -> TermFunction:
        pivot = self._space.whiten(start).detach()
        if targets.clip is not None and targets.clip.pivot is not None:
            pivot = self._whiten_ws(targets.clip.pivot)
        return lambda c: latent.pull(c.whitened, pivot)

    def _fidelity(self) -> TermFunction:
        mean = self._space.statistics.mean
        return lambda c: latent.fidelity(c.ws, mean)

    def _smoothness(self, targets: Targets) -> TermFunction:
        clip = _clip_of(targets, "smoothness")
        return lambda c: temporal.smoothness(c.ws, clip.before, clip.after)

    def _acceleration(self, targets: Targets) -> TermFunction:
        clip = _clip_of(targets, "acceleration")
        before, after = self._whiten_ws(clip.before), self._whiten_ws(clip.after)
        return lambda c: temporal.acceleration(c.whitened, before, after)

    def _whiten_ws(self, ws: Tensor) -> Tensor:
        """Whitened coordinates of ws [N,num_ws,D]."""
        return self._space.whiten(self._space.from_ws(ws)).detach()


def _clip_of(targets: Targets, term: str) -> Clip:
    if targets.clip is None:
        raise ConfigError(f"loss_weights: {term}: is for the frames of a clip; see `animate`")
    return targets.clip


class _Once:
    """Remembers a function's value for the last candidate: two terms of one step share it."""

    def __init__(self, function: Callable[[Candidate], Tensor]) -> None:
        self._function = function
        self._last: tuple[Candidate, Tensor] | None = None

    def __call__(self, candidate: Candidate) -> Tensor:
        if self._last is None or self._last[0] is not candidate:
            self._last = candidate, self._function(candidate)
        return self._last[1]

    def recorded_parts(self) -> list[object]:
        """All that decides the value, for `projection.graphs`."""
        return [self._function]
