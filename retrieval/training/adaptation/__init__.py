"""Unsupervised adaptation of a static model to a corpus."""
