"""Gradient alignment: how far learning a sample would carry a model toward a reference.

Source: Huang, Bilkhu, Cooper, Sala and Movellan 2025, Evaluating Sample Utility for Data Selection by Mimicking Model
    Weights, arXiv 2501.06708.
"""
