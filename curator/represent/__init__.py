"""What several rooms share of vectors: embedders, indexes, pixel maps."""
