"""Training a static model with the trainer of sentence-transformers: large data, GPUs, checkpoints."""
