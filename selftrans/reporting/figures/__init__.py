"""The kinds of figure, a module each, which ``kind`` in config/figures.yaml names: ``Settings``, ``inputs``, ``draw``.

``DATA`` says how the data behind the picture is saved: "csv", if ``draw`` returns it as a table, or "npz", if as
named arrays. The Snakefile imports these modules to know what a figure is made of, so they import matplotlib and
pandas where they draw.
"""
