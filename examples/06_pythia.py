"""The updates of Pythia, from the checkpoints that its authors keep on the Hugging Face hub.

    python examples/06_pythia.py [number of revisions, 3 to 9] [folder]

Analyses EleutherAI/pythia-14m at steps 1000, 2000 and so on, one revision at a time: what was downloaded for it is
removed from the cache again. Needs a network and huggingface_hub: pip install "spectraledge[hub]". Exits with status
3, and the reason, where the hub cannot be reached.
"""

from __future__ import annotations

import sys

import spectraledge as se
from spectraledge.checkpoints.find import find
from spectraledge.errors import DataError, MissingDependencyError

numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
folders = [argument for argument in sys.argv[1:] if not argument.isdecimal()]
n_revisions, out = min(max([*numbers, 6][0], 3), 9), [*folders, "runs/pythia-14m"][0]
window = min(5, n_revisions - 1)

try:
    series = find(f"EleutherAI/pythia-14m@step[1-{n_revisions}]000")  # all of them: "@step*"
    for row in series.table():
        print(f"{row['file']:>12}  {(row['bytes'] or 0) / 1e6:.0f} MB of {row['format']}")
    recording = se.analyze(series, window=window, out=out, overwrite=True, drop_cache=True, say=print)
except (DataError, MissingDependencyError) as error:
    print(error)
    sys.exit(3)

print(recording)
spectra = recording.spectra(window=window)
gap = spectra.gap()
for n, step in enumerate(spectra.steps):
    sigma = "  ".join(f"{s:.3g}" for s in spectra.singular_values[n])
    print(f"step {step}: singular values {sigma}; floor {spectra.floor[n]:.3g}; k* = {gap.position[n]}")
