"""The runs of a grid as jobs that outlive the process which launched them: of a Slurm cluster, or of this machine."""
