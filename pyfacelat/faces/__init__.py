"""Faces: landmark groups, heat maps and points, drawing."""
