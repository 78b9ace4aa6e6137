"""Catalogued training runs that anyone can repeat: tasks, models, optimizers, one training loop.

``spectraledge.experiments.catalogue`` names them, ``spectraledge.experiments.run.run`` trains one.
"""
