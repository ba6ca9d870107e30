"""Objectives and gradient estimators; they take callables and parameters, never a module."""
