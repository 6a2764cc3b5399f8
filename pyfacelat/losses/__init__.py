"""Loss terms; each returns one value per image, never a mean over the batch."""
