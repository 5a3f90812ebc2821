"""Analytic beating hearts whose volumes, areas and function are known in closed form."""
