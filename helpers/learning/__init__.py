"""Keras and TensorFlow: both ends of a model, its input, export, checkpoints and several machines.
Notebooks that train import it, and no stage does: it takes seconds to load. Baselines, too.
"""
