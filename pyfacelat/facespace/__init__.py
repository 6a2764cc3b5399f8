"""A face space: a few faces as axes, and a generator's faces for every mixture of them.

A small encoder learns to map one vector per face (or the face's landmarks) to latents that render
it; other vectors then give faces in between. **Only the direction of a vector matters**: the
encoder divides by its length, so that (1, 1) and (5, 5) are one face, and one face alone, however
weak, is that face. Where strength shall count, ask for it: with `strength=True` a vector's sum,
1 for the faces themselves, scales the distance from the average face; 0 is the average face, and
more than 1 exaggerates.

    data = load_faces("aligned", generator.img_resolution)
    space = fit(data, generator, features)
    space.render(space.vector({"anna": 2, "bert": 1}))
"""

from __future__ import annotations

from pyfacelat.facespace.data import FaceData, load_faces, points_vector
from pyfacelat.facespace.space import FaceSpace
from pyfacelat.facespace.train import FitConfig, fit

__all__ = ["FaceData", "FaceSpace", "FitConfig", "fit", "load_faces", "points_vector"]
