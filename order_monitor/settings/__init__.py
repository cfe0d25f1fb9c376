"""The settings (`sections`, `model`), how they are read and how mistakes are reported (`loading`),
and the types of their values (`types`).
"""
