"""Gymnasium environments as arms."""
