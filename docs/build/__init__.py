"""The reference pages, written from the code that they are about.

A page is a function without arguments that returns Markdown; `pages.PAGES` names them all.

Invariant: the same code gives the same bytes, on every machine and in every time zone.
"""
