"""How fast the course is, against the way each thing is usually done.

    python -m experiments.performance                     every benchmark
    python -m experiments.performance mlp_epoch           one of them
    python -m experiments.performance --record            write results/performance/*.json and the table README.md

Each file measures its arms in turns within one process (`timing.interleaved`) and states a ratio, because only ratios
of one run compare, never seconds of two runs. A benchmark is a module with `measure(rounds, quick) -> list[Row]`, where
`quick` makes it small, to see that it works. `loops`: the arms that train. `table`: results on disk, and README.md.
"""
