"""Information geometry of prediction space: distances, geodesics, embedding and trajectories.

Networks are points: P of shape (N, C) gives each of N samples a probability over C classes. A trajectory
(T, N, C) is the path of one training run. Nothing here trains a network; prediction files
(`info_geometry.predictions`) are all that comes in.
"""
