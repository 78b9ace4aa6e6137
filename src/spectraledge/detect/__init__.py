"""When something happened in a run, and what would have announced it: events, detectors and how they are judged.

Works on recordings and plain arrays; knows nothing about torch.
"""
