"""Animation: a video, a folder of frames or a track of landmarks drives a look."""

from pyfacelat.animation.config import AnimationConfig, make_animation
from pyfacelat.animation.engine import AnimationStep, animate
from pyfacelat.animation.result import AnimationResult

__all__ = ["AnimationConfig", "AnimationResult", "AnimationStep", "animate", "make_animation"]
