"""Faces: landmark groups, heat maps and points, drawing, the FFHQ crop."""
