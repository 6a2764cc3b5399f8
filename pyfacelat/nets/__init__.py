"""Networks: pure modules with dataclass configs, no file access (see `pyfacelat.zoo`)."""
