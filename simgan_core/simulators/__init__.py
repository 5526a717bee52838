"""Batched eye simulators in torch: shape, textures and light in, labelled images out."""
