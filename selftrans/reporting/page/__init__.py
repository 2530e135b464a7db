"""One HTML file that tells the story of a scale: headline, claims, figures, training curves, where it all comes from.

It needs no network and no other file, reads well at laptop and phone width, and follows light and dark.
"""
