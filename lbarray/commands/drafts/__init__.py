"""Configurations written by lbarray: from a few answers, or from another program's file."""
