"""Executed notebooks, and the text that they are made from (`build`)."""
