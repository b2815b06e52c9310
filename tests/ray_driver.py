"""A corpus job on a cluster, in a process of its own: Ray is set up by the environment, before it is imported."""

import sys

from corpus_helpers import Noting

from vermilion.cluster.provenance import Provenance
from vermilion.cluster.ray_data import RayOptions, run_ray


def origin(names):
    return Provenance({stage: {"name": name} for stage, name in names.items()})


if __name__ == "__main__":
    manifest, out, address, notes, longest = sys.argv[1:]
    options = RayOptions(rows_per_part=9, chunk=2, address=address)
    found = run_ray(manifest, out, Noting(notes, int(longest)), origin, options)
    print("done", found.done, "failed", found.failed, flush=True)
