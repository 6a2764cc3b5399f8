"""Triton kernels of pyfacelat, installed as `pyfacelat.kernels`.

A leaf package: its files import torch and triton only, never pyfacelat. It is imported by the ops
that own a Triton implementation, inside the function that launches it, so that `import pyfacelat`
never imports triton.
"""
