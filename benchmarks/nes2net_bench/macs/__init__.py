"""Multiply-accumulates and parameters: of graphs, of torch modules, as the papers count them."""
